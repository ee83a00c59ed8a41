"""A subset in the layouts of other trainers: what stands there, what comes back, what is lost.

Their own loaders run in scripts/check_peers.sh; `datasets`, which all of them load with, here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.sections import DataConfig, ExportLayout
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.run.folder import read_json
from prism_tune.selection.export.layouts import LAYOUTS, export_pool

pytestmark = pytest.mark.slow

LAYOUT_NAMES = get_args(ExportLayout)
TEXT_FILES = ("llava", "sharegpt", "messages", "llamafactory", "ms_swift")


def talk(*texts):
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


RECORDS = [
    {"id": 7, "image": "a/0.png", "conversations": talk("<image>\nwhat?", "a cat")},
    {
        "id": "two",
        "image": ["a/1.png", "b/0.png"],
        "source": "pairs",
        "conversations": talk("<image>\n<image>\nsame?", "no", "sure?", "yes"),
    },
    {"id": "text", "conversations": talk("hello", "grüß dich"), "width": "none"},
    {"id": "last", "image": "b/1.png", "conversations": talk("what?\n<image>", "x"), "width": 40},
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    root = tmp_path_factory.mktemp("pool")
    for number, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        path = root / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 6), (40 * number, 9, 9)).save(path)
    (root / "pool.json").write_text(json.dumps(RECORDS))
    return open_pool(
        DataConfig(records=str(root / "pool.json"), image_dir=str(root / "images"), num_workers=0)
    )


@pytest.fixture
def export(pool, tmp_path):
    """Writes the pool in a layout; the path."""

    def write(layout):
        path = tmp_path / f"mine{LAYOUTS[layout].suffix}"
        export_pool(pool, layout, path)
        return path

    return write


def warnings(caplog):
    return [entry.message for entry in caplog.records if entry.levelname == "WARNING"]


def as_records(pool):
    return [
        (record.id, record.source, record.images, record.turns, record.system)
        for record in (pool[index] for index in range(len(pool)))
    ]


def test_llava(export):
    assert read_json(export("llava")) == [
        {**RECORDS[0], "id": "7", "source": "a"},
        RECORDS[1],
        {**RECORDS[2], "source": "text"},
        {**RECORDS[3], "source": "b"},
    ]


def test_sharegpt(export):
    assert read_json(export("sharegpt"))[1] == {
        "id": "two",
        "source": "pairs",
        "images": ["a/1.png", "b/0.png"],
        "conversations": talk("<image>\n<image>\nsame?", "no", "sure?", "yes"),
    }


MESSAGES = [
    {
        "id": "7",
        "source": "a",
        "images": ["a/0.png"],
        "messages": [
            {"role": "user", "content": "<image>\nwhat?"},
            {"role": "assistant", "content": "a cat"},
        ],
    },
    {
        "id": "text",
        "source": "text",
        "images": [],
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "grüß dich"},
        ],
    },
]


@pytest.mark.parametrize(("layout", "more"), [("messages", {"width": "none"}), ("ms_swift", {})])
def test_json_lines_of_messages(export, layout, more):
    """ms-swift's custom dataset; what it reads in columns has no keys of mixed types."""
    rows = [json.loads(line) for line in export(layout).read_text().splitlines()]
    assert [rows[0], rows[2]] == [MESSAGES[0], MESSAGES[1] | more]


def test_llamafactory_finds_its_file_by_dataset_info(export, tmp_path):
    """Its data/README.md: a name, the file, the columns' names, and how roles are called."""
    (tmp_path / "dataset_info.json").write_text('{"identity": {"file_name": "identity.json"}}')
    rows = read_json(export("llamafactory"))
    assert [rows[0], rows[2]] == MESSAGES
    assert read_json(tmp_path / "dataset_info.json") == {
        "identity": {"file_name": "identity.json"},
        "mine": {
            "file_name": "mine.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        },
    }


@pytest.mark.parametrize("layout", ["llava", "ms_swift", "parquet"])
def test_a_name_says_what_the_file_is(pool, tmp_path, layout):
    with pytest.raises(UserError, match=rf"expected a name in \{LAYOUTS[layout].suffix}"):
        export_pool(pool, layout, tmp_path / "mine.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_info_that_is_none_is_refused(export, tmp_path):
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(UserError, match=r"dataset_info\.json: expected LLaMA-Factory's object"):
        export("llamafactory")


def test_trl_gets_images_and_content_in_parts(export, pool):
    rows = load_dataset(str(export("trl")), split="train")
    assert [[image.size for image in row["images"]] for row in rows] == [
        [(8, 6)],
        [(9, 6), (10, 6)],
        [],
        [(11, 6)],
    ]
    assert rows[3]["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "what?\n"}, {"type": "image", "text": None}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
    ]
    assert rows["source"] == ["a", "pairs", "text", "b"]


def test_parquet_holds_the_image_files_themselves(export, pool):
    path = export("parquet")
    rows = load_dataset("parquet", data_files=str(path), split="train")
    assert rows[0]["messages"] == MESSAGES[0]["messages"]
    stored = rows.with_format("arrow")[:].column("images").to_pylist()
    assert stored[1] == [
        {"bytes": (pool.image_dir / name).read_bytes(), "path": name}
        for name in ("a/1.png", "b/0.png")
    ]


SPOKEN = {
    "id": "s",
    "source": "s",
    "conversations": [
        {"from": "system", "value": "be brief"},
        *talk("one?", "1", "two?", "2"),
    ],
}
SPOKEN["conversations"][2]["loss"] = False


@pytest.mark.parametrize(
    ("layout", "key", "spoken", "lost"),
    [
        ("llava", "system", "be brief", None),
        ("sharegpt", "conversations", talk("one?", "1", "two?", "2"), None),
        ("messages", "messages", "loss", None),
        ("ms_swift", "messages", "loss", None),
        ("llamafactory", "messages", "", "answers without loss, which would be learnt (1 record)"),
    ],
)
def test_system_lines_and_answers_without_loss(tmp_path, caplog, layout, key, spoken, lost):
    (tmp_path / "pool.json").write_text(json.dumps([SPOKEN]))
    path = tmp_path / f"mine{LAYOUTS[layout].suffix}"
    before = open_pool(DataConfig(records=str(tmp_path / "pool.json")))
    with caplog.at_level("WARNING", logger="prism_tune"):
        export_pool(before, layout, path)
    assert warnings(caplog) == ([f"{path}: not carried by {layout}: {lost}"] if lost else [])
    row = json.loads(path.read_text().strip("[]\n"))
    if key == "messages":
        unlearnt = {"loss": False} if spoken else {}
        assert row[key][:3] == [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "one?"},
            {"role": "assistant", "content": "1", **unlearnt},
        ]
    elif key == "conversations":
        spoken[1]["loss"] = False
        assert (row[key], row["system"]) == (spoken, "be brief")
    else:
        assert row[key] == spoken
    after = open_pool(DataConfig(records=str(path)))
    assert after[0].system == "be brief"
    assert [turn.has_loss for turn in after[0].turns] == [True, lost is not None, True, True]


def test_a_pool_comes_back_from_parquet_and_from_a_trl_folder(pool, export):
    """Ids, sources, turns and the image files; these by their content."""
    before = open_pool(pool.config.model_copy(update={"image_place": "keep"}))
    for layout in ("parquet", "trl"):
        after = open_pool(DataConfig(records=str(export(layout)), image_place="keep"))
        assert (after.ids, after.sources) == (before.ids, before.sources)
        for number in range(len(RECORDS) - (layout == "trl")):
            assert after[number].turns == before[number].turns
            assert [path.read_bytes() for path in after.image_paths(number)] == [
                path.read_bytes() for path in before.image_paths(number)
            ]
        assert after[3].turns[0].text in ("what?\n<image>", "what?\n<image>\n")


def test_images_that_records_hold_become_files_or_stay_in_the_table(export, tmp_path, caplog):
    """An export names no file of the cache."""
    held = open_pool(DataConfig(records=str(export("parquet"))))
    assert held[0].images[0].startswith("embedded:")
    again = tmp_path / "again"
    with caplog.at_level("WARNING", logger="prism_tune"):
        caplog.clear()
        export_pool(held, "parquet", again / "mine.parquet")
    assert warnings(caplog) == []
    back = open_pool(DataConfig(records=str(again / "mine.parquet")))
    assert back.uids == held.uids
    export_pool(held, "ms_swift", again / "mine.jsonl")
    first = json.loads((again / "mine.jsonl").read_text().splitlines()[0])
    (path,) = map(Path, first["images"])
    assert path.parent == again / "mine_images"
    assert path.read_bytes() == held.image_paths(0)[0].read_bytes()
    assert len(list(path.parent.iterdir())) == 4


def test_image_stays_where_the_file_has_it(pool, export):
    assert pool[3].turns[0].text == "<image>\nwhat?"  # as it is trained on
    assert read_json(export("llava"))[3]["conversations"][0]["value"] == "what?\n<image>"


def test_a_backslash_of_windows_is_a_slash_elsewhere(pool, tmp_path):
    record = {**RECORDS[0], "image": "a\\0.png"}
    (tmp_path / "pool.json").write_text(json.dumps([record]))
    folder = str(pool.image_dir)
    windows = open_pool(DataConfig(records=str(tmp_path / "pool.json"), image_dir=folder))
    export_pool(windows, "sharegpt", tmp_path / "mine.json")
    assert read_json(tmp_path / "mine.json")[0]["images"] == ["a/0.png"]


def test_a_trl_folder_comes_in_files_of_a_bounded_size(export, monkeypatch):
    monkeypatch.setattr("prism_tune.selection.export.tables._GROUP_BYTES", 0)
    monkeypatch.setattr("prism_tune.selection.export.tables._SHARD_BYTES", 0)
    folder = export("trl")
    assert len(list(folder.glob("train-*.parquet"))) > 2
    assert load_dataset(str(folder), split="train")["id"] == ["7", "two", "text", "last"]
    with pytest.raises(UserError, match="mine: already there; name a new folder"):
        export("trl")


def test_what_a_killed_export_left_is_removed_by_the_next(export, tmp_path):
    left, others = (tmp_path / f".{name}.prism_tune-a8f_x0q1" for name in ("mine", "mind"))
    for folder in (left, others):
        folder.mkdir()
        (folder / "train-00000.parquet").touch()
    export("trl")
    assert sorted(path.name for path in tmp_path.iterdir()) == [others.name, "mine"]


def test_an_image_that_is_gone_is_named(export, pool, tmp_path):
    path = pool.image_dir / "b/1.png"
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(
            UserError, match=r"record 3 \(id 'last'\): image .*1\.png: No such file"
        ):
            export("trl")
    finally:
        path.write_bytes(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layout", "lost"),
    [
        *((name, None) for name in ("llava", "sharegpt", "messages")),
        *((name, "key `width` (2 records)") for name in ("llamafactory", "ms_swift")),
        ("parquet", "names of images (3 records), key `width` (2 records)"),
        (
            "trl",
            "names of images (3 records), key `width` (2 records), line breaks beside `<image>` "
            "(1 record)",
        ),
    ],
)
def test_what_a_layout_does_not_carry_is_said(export, caplog, layout, lost):
    with caplog.at_level("INFO", logger="prism_tune"):
        path = export(layout)
    assert warnings(caplog) == ([f"{path}: not carried by {layout}: {lost}"] if lost else [])
    assert f"{path}: 4 records as {layout}" in caplog.messages


@pytest.mark.parametrize("layout", ["llava", "messages", "ms_swift"])
def test_keys_of_turns_do_not_become_keys_of_the_record(tmp_path, caplog, layout):
    record = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    record["messages"][1] |= {"thinking": "hm", "name": None}
    (tmp_path / "pool.json").write_text(json.dumps([record]))
    path = tmp_path / f"mine{LAYOUTS[layout].suffix}"
    export_pool(open_pool(DataConfig(records=str(tmp_path / "pool.json"))), layout, path)
    assert "thinking" not in path.read_text()
    lost = f"{path}: not carried by {layout}: key `turns.thinking` (1 record)"
    assert warnings(caplog)[-1] == lost


FURTHER = {"role": "x", "from": "web", "value": 3, "content": "c", "input": "i"}


@pytest.mark.parametrize(
    ("record", "lost"),
    [
        ({"messages": RECORDS[2]["conversations"], **FURTHER}, list(FURTHER)),
        ({"question": "q", "answer": "a", **FURTHER}, list(FURTHER)),
        ({"instruction": "q", "output": "a", **FURTHER}, ["role", "from", "value", "content"]),
        ({"texts": [{"user": "q", "assistant": "a", "source": "x"}]}, ["turns.source"]),
        ({"prompt": [RECORDS[2]["conversations"][0]], "completion": [
            {"role": "assistant", "content": "a", "name": "b"}], "choices": ["x"]},
            ["choices", "turns.name"]),
    ],
)  # fmt: skip
def test_every_key_that_is_not_read_is_counted(tmp_path, caplog, record, lost):
    """Also those that mean something in turns, or beside other keys."""
    (tmp_path / "pool.json").write_text(json.dumps([record]))
    path = tmp_path / "mine.jsonl"
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.json")))
    assert list(pool.extras(0)) == lost
    export_pool(pool, "ms_swift", path)
    keys = ", ".join(f"key `{key}` (1 record)" for key in lost)
    assert warnings(caplog)[-1] == f"{path}: not carried by ms_swift: {keys}"


PIECE = st.sampled_from(
    ["<image>", "<image>\n", "what is it?", "\n", "grüß", '"\\', "\u2028", "no"]
)
ANSWER = st.text(st.sampled_from('ab"\\ü\n\u2028 '), min_size=1).filter(str.strip)


@st.composite
def drawn_records(draw, has_loss):
    records = []
    for _ in range(draw(st.integers(1, 5))):
        asked = ["".join(draw(st.lists(PIECE))) + "?" for _ in range(draw(st.integers(1, 3)))]
        names = [f"{n % 2}/{n}.png" for n in range(sum(text.count("<image>") for text in asked))]
        turns = talk(*(text for question in asked for text in (question, draw(ANSWER))))
        if len(turns) > 2 and draw(st.booleans()) and has_loss:
            turns[1]["loss"] = False
        if draw(st.booleans()):
            turns.insert(0, {"from": "system", "value": draw(ANSWER)})
        record = {"id": draw(st.one_of(st.integers(), ANSWER)), "conversations": turns}
        source = draw(st.one_of(st.none(), st.sampled_from(["a", "ü"])))
        extra = draw(
            st.sampled_from([{}, {"n": 1 << 70}, {"k": [{"a": None}]}, {"\ud800": "\udfff"}])
        )
        image = {"image": names[0] if len(names) == 1 else names} if names else {}
        records.append({**record, **image, **({"source": source} if source else {}), **extra})
    return records


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("layout", TEXT_FILES)
def test_what_goes_out_comes_back(tmp_path_factory, layout, data):
    """Ids, sources, images, turns, order; other keys where the layout takes any."""
    records = data.draw(drawn_records(has_loss=layout != "llamafactory"))
    root = tmp_path_factory.mktemp("trip")
    (root / "pool.json").write_text(json.dumps(records))
    before = open_pool(DataConfig(records=str(root / "pool.json")))
    path = root / f"out{LAYOUTS[layout].suffix}"
    export_pool(before, layout, path)
    after = open_pool(DataConfig(records=str(path)))
    assert as_records(after) == as_records(before)
    assert after.uids == before.uids
    if LAYOUTS[layout].carries_extras:
        assert [after.extras(n) for n in range(len(after))] == [
            before.extras(n) for n in range(len(before))
        ]


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_select_writes_the_layout_beside_the_subset(published_run, tmp_path):
    config = tmp_path / "again.yaml"
    config.write_text((published_run.selection / "config.yaml").read_text())
    for _ in range(2):  # finished, and there already
        done = call("select", config, "--as", "trl")
        assert done.exit_code == 0, done.output
    folder = published_run.exports / "trl" / "published"
    kept = [record["id"] for record in read_json(published_run.subset)]
    assert load_dataset(str(folder), split="train")["id"] == kept


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--as", "trl"], "already there; name a new folder"),
        (["--as", "llava"], r"llava is one file: expected a name in \.json"),
        ([], "a folder; name the file to write"),
    ],
)
def test_the_folder_one_stands_in_is_no_place(published_run, monkeypatch, arguments, says):
    monkeypatch.chdir(published_run.root)
    done = call("subset", "export", ".", *arguments, "--to", ".")
    assert isinstance(done.exception, UserError)
    assert re.search(says, str(done.exception))


def test_export_writes_it_anywhere(published_run, tmp_path):
    to = tmp_path / "data" / "mine.json"
    done = call("subset", "export", published_run.root, "--as", "llamafactory", "--to", to)
    assert done.exit_code == 0, done.output
    assert read_json(to.with_name("dataset_info.json"))["mine"]["file_name"] == "mine.json"
    assert len(read_json(to)) == len(read_json(published_run.subset))
    refused = call("subset", "export", published_run.root, "--as", "paper", "--to", to)
    assert refused.exit_code == 2
    nothing = call("subset", "export", tmp_path, "--as", "llava", "--to", to)
    assert "first run `prism-tune select CONFIG`" in str(nothing.exception)
