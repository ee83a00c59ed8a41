from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import stat
import tempfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.permissions import permissions_held

from prism_tune.config.sections import DataConfig
from prism_tune.data.layouts.columns import build_columns
from prism_tune.data.layouts.media import refuse_media, refuse_unread
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import open_pool, write_subset
from prism_tune.errors import ConfigError, UserError
from prism_tune.schema import Turn


def make(question="<image>\nwhat?", answer="a cat", image="coco/1.jpg", **extra):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    record = {"id": "1", "conversations": turns, **extra}
    return {**record, "image": image} if image else record


def open_records(tmp_path, records, *, name="pool.json", **config):
    path = tmp_path / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        path.write_text(json.dumps(records))
    return open_pool(DataConfig(records=str(path), **config))


def test_a_llava_record_is_read(tmp_path):
    pool = open_records(tmp_path, [make()])
    record = pool[0]
    assert (record.id, record.source, record.images) == ("1", "coco", ("coco/1.jpg",))
    assert record.turns == (Turn("human", "<image>\nwhat?"), Turn("gpt", "a cat"))
    assert not record.is_text_only


@pytest.mark.parametrize(
    ("question", "front"),
    [
        ("what?\n<image>", "<image>\nwhat?"),
        ("  what <image> is it? ", "<image>\nwhat  is it?"),
        ("<image> what?", "<image> what?"),
        (" <image>\nwhat?\n", " <image>\nwhat?\n"),
    ],
)
def test_the_image_goes_to_the_front_of_its_turn(tmp_path, question, front):
    """As LLaVA's preprocess_multimodal does; a turn that begins with it stays as it is."""
    moved = open_records(tmp_path, [make(question)])
    kept = open_records(tmp_path, [make(question)], image_place="keep")
    assert (moved[0].turns[0].text, kept[0].turns[0].text) == (front, question)
    assert moved.num_moved == (front != question)
    assert kept.num_moved == 0
    assert moved.uids == kept.uids
    assert (moved.fingerprint == kept.fingerprint) == (front == question)


def test_a_later_turns_image_goes_to_the_front_of_that_turn(tmp_path):
    turns = [*make("hi")["conversations"], *make("and this? <image>")["conversations"]]
    pool = open_records(tmp_path, [{"image": "1.jpg", "conversations": turns}])
    assert [t.text for t in pool[0].turns[::2]] == ["hi", "<image>\nand this?"]


def test_interleaved_images_stay_in_place(tmp_path):
    pool = open_records(tmp_path, [make("is <image> as <image>", image=["1.jpg", "2.jpg"])])
    assert pool[0].turns[0].text == "is <image> as <image>"
    assert pool.num_moved == 0


def test_images_without_placeholder_are_put_before_the_first_question(tmp_path):
    records = [make(), make("same?", image=["a/1.jpg", "a/2.jpg"]), make("q", image=None)]
    pool = open_records(tmp_path, records)
    assert pool[1].turns[0].text == "<image>\n<image>\nsame?"
    assert pool.unmarked == [1]
    assert (
        pool.uids[1]
        == open_records(
            tmp_path, [make("<image>\n<image>\nsame?", image=["a/1.jpg", "a/2.jpg"])]
        ).uids[0]
    )


def test_integer_and_missing_ids_become_text(tmp_path):
    no_id = make()
    del no_id["id"]
    assert open_records(tmp_path, [make() | {"id": 7}, no_id]).ids == ["7", "1"]


def test_several_images(tmp_path):
    records = [
        make("<image><image> same?", image=["a/1.jpg", "a/2.jpg"]),
        make("<image>?", image=None, images=["b/3.jpg"]),
    ]
    pool = open_records(tmp_path, records)
    assert [pool[i].images for i in range(2)] == [("a/1.jpg", "a/2.jpg"), ("b/3.jpg",)]
    assert pool.unique_images() == ["a/1.jpg", "a/2.jpg", "b/3.jpg"]


def test_text_only_rows(tmp_path):
    pool = open_records(tmp_path, [make(), make("hello", image=None)])
    assert pool.is_text_only_N.tolist() == [False, True]


def test_messages_layout(tmp_path):
    content = [{"type": "image"}, {"type": "text", "text": "what?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "cat"}]
    pool = open_records(tmp_path, [{"messages": messages, "images": ["x/1.png"]}])
    assert pool[0].turns == (Turn("human", "<image>\nwhat?"), Turn("gpt", "cat"))


def test_columns_name_other_keys(tmp_path):
    record = {"key": 3, "file": "a/b.png", "talk": [{"who": "human", "says": "<image>"}]}
    record["talk"].append({"who": "gpt", "says": "yes"})
    columns = {"id": "key", "image": "file", "conversations": "talk", "role": "who", "text": "says"}
    pool = open_records(tmp_path, [record], columns=columns)
    assert (pool[0].id, pool[0].images, pool[0].turns[1].text) == ("3", ("a/b.png",), "yes")


def test_unknown_column_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.columns: unknown `picture`"):
        open_records(tmp_path, [make()], columns={"picture": "file"})


def test_parquet_round_trip(tmp_path):
    path = tmp_path / "pool.parquet"
    pq.write_table(pa.Table.from_pylist([make(extra=1), make("b <image>", extra=2)]), path)
    pool = open_pool(DataConfig(records=str(path)))
    assert pool[1].turns[0].text == "<image>\nb"
    write_subset(pool, [1], tmp_path / "subset.parquet")
    assert pq.read_table(tmp_path / "subset.parquet").to_pylist() == [make("b <image>", extra=2)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["vqa", "gqa", "images", "text"]),
        ({"source": "image_folder"}, ["coco", "gqa", "images", "text"]),
        ({"source_names": {"gqa": "GQA"}}, ["vqa", "GQA", "images", "text"]),
    ],
)
def test_sources(tmp_path, config, expected):
    records = [
        make(source="vqa"),
        make(image="gqa/images/2.jpg"),
        make(image="2.jpg"),
        make("hi", image=None),
    ]
    assert open_records(tmp_path, records, **config).sources == expected


def test_repeated_ids_and_exact_duplicates_keep_their_rows(tmp_path):
    pool = open_records(tmp_path, [make(), make(answer="a dog"), make(), make()])
    assert pool.ids == ["1"] * 4
    assert len(set(pool.uids)) == 4


def test_uids_depend_on_content_only(tmp_path):
    pool = open_records(tmp_path, [make(), make(answer="a dog")])
    moved = open_records(tmp_path, [make(answer="a dog"), make(id="x", note=1)], name="moved.json")
    assert moved.uids == pool.uids[::-1]
    assert moved.fingerprint != pool.fingerprint


def test_fingerprint_is_the_content_not_the_file(tmp_path):
    first = open_records(tmp_path, [make()])
    copy = open_records(tmp_path, [make()], name="copy.json")
    assert first.fingerprint == copy.fingerprint


def test_fingerprint_is_of_what_is_read_and_of_what_cannot_be(tmp_path):
    """A subset holds the file's own text, so that counts too."""
    records = [{**make(), "other_id": "b", "note": "x"}, {"id": "no turns"}]
    skip = {"policy": {"no_conversations": "skip"}}
    pools = [
        open_records(tmp_path, records, **skip),
        open_records(tmp_path, records, **skip, columns={"id": "other_id"}),
        open_records(tmp_path, records, **skip, source_names={"coco": "photos"}),
        open_records(tmp_path, [{**records[0], "note": "y"}, records[1]], **skip),
        open_records(tmp_path, [records[0], {"id": "other"}], **skip),
        open_records(tmp_path, records[::-1], **skip),
    ]
    assert len({pool.fingerprint for pool in pools}) == len(pools)
    assert open_records(tmp_path, records, **skip).fingerprint == pools[0].fingerprint


def test_a_changed_file_is_converted_again(tmp_path):
    open_records(tmp_path, [make()])
    assert len(open_records(tmp_path, [make(), make("x <image>")])) == 2


def test_the_second_opening_does_not_read_the_source(tmp_path, monkeypatch):
    open_records(tmp_path, [make()])
    monkeypatch.setattr("prism_tune.data.source.read_json_file", lambda *_: pytest.fail("read"))
    assert len(open_pool(DataConfig(records=str(tmp_path / "pool.json")))) == 1


@pytest.fixture
def pools(tmp_path, monkeypatch):
    """The cache of converted pools."""
    monkeypatch.setenv("PRISM_TUNE_POOL_CACHE", str(tmp_path / "pools"))
    return tmp_path / "pools"


def test_a_converted_pool_can_be_read_by_whom_the_umask_lets(tmp_path, pools):
    before = os.umask(0o027)
    try:
        open_records(tmp_path, [make()])
    finally:
        os.umask(before)
    (folder,) = (path.parent for path in pools.glob("*/pool.json"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


@pytest.mark.parametrize("closed", [".", "pool.json", "records.arrow"])
def test_a_converted_pool_that_may_not_be_read_is_not_taken_for_damaged(tmp_path, pools, closed):
    config = open_records(tmp_path, [make()]).config
    (folder,) = (path.parent for path in pools.glob("*/pool.json"))
    (folder / closed).chmod(0)
    with (
        permissions_held(),
        pytest.raises(UserError, match=rf"{folder}: .* may not be read .*PRISM_TUNE_POOL_CACHE"),
    ):
        open_pool(config)
    (folder / closed).chmod(0o700)
    assert len(open_pool(config)) == 1


@pytest.mark.parametrize("lost", ["embedded", "embedded/*/*"])
def test_images_that_were_tidied_away_are_written_again(tmp_path, pools, caplog, lost):
    pixels = [b"\x89PNG" + bytes([n]) for n in range(3)]
    rows = [{"image": None, "question": "q", "answer": "a"}]
    rows += [{**rows[0], "image": {"bytes": content}} for content in pixels]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    config = DataConfig(records=str(tmp_path / "pool.parquet"))
    before = open_pool(config)
    for path in sorted(pools.glob(lost))[-1:]:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    pool = open_pool(config)
    assert [pool.image_paths(n)[0].read_bytes() for n in (1, 2, 3)] == pixels
    assert pool.uids == before.uids
    assert "images that its records held are gone; the pool is converted again" in caplog.text
    caplog.clear()
    open_pool(config)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("record", "reason", "part"),
    [
        ([1], "not_an_object", "expected a JSON object, got list"),
        ({"id": "1"}, "no_conversations", "found 'id'; data.columns names other keys"),
        (make() | {"conversations": []}, "no_conversations", "got []"),
        (make() | {"conversations": ["x"]}, "bad_field", "turn 0: expected an object"),
        (make() | {"conversations": [{"from": "me", "value": "x"}]}, "unknown_role", "got 'me'"),
        (make(question=True), "bad_field", "turn 0: `value` or `content`: expected text, got True"),
        (make(question="\ud83d <image>"), "bad_field", "expected text"),
        (make(image={"file": "x"}), "bad_field", "`image` or `images`: expected a path"),
        (
            make() | {"conversations": [*make()["conversations"], {"from": "gpt", "value": "x"}]},
            "not_alternating",
            "turn 2: expected human, got gpt",
        ),
        (
            make() | {"conversations": make()["conversations"][:1]},
            "not_alternating",
            "a question without an answer",
        ),
        (make(answer=" \n"), "empty_answer", "turn 1: the answer is empty"),
        (make(" ", image=None), "empty_question", "turn 0: the question is empty"),
        (
            make("<image> one", image=["a.jpg", "b.jpg"]),
            "image_count",
            "1 <image> in the turns, 2 images",
        ),
        (make(image=None), "image_count", "1 <image> in the turns, 0 images"),
    ],
)
def test_bad_records(tmp_path, record, reason, part):
    records = [make(), record]
    with pytest.raises(UserError) as error:
        open_records(tmp_path, records)
    message = str(error.value)
    assert f"{tmp_path / 'pool.json'}: 1 bad record\n  {reason}: record 1 (id " in message
    assert part in message
    assert f"data.policy.{reason}=skip" in message
    pool = open_records(tmp_path, records, policy={reason: "skip"})
    assert len(pool) == 1
    assert [item.reason for item in pool.skipped] == [reason]


def test_all_bad_records_are_counted(tmp_path):
    records = [make(answer="") | {"id": str(i)} for i in range(8)]
    with pytest.raises(UserError, match=r"8 bad records(\n.*){5}\n  \.\.\. and 3 more"):
        open_records(tmp_path, records)


def test_unknown_policy_reason(tmp_path):
    with pytest.raises(ConfigError, match="did you mean `empty_answer`"):
        open_records(tmp_path, [make()], policy={"empty_answr": "skip"})


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "expected a JSON list or one JSON object a line"),
        ("[{}", "record 1: not valid JSON: the file ends"),
        ("[{} {}]", "record 1: not valid JSON: expected ']', found '{}]'"),
        ('[{"a": }]', "record 0: not valid JSON"),
        ("[] []", "text after the end of the list"),
        ('{"id": 1}\n{"id"', "line 2: not valid JSON"),
    ],
)
def test_broken_files(tmp_path, content, part):
    path = tmp_path / "pool.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        open_pool(DataConfig(records=str(path)))
    assert part in str(error.value)
    assert str(path) in str(error.value)


def test_missing_file_and_wrong_encoding(tmp_path):
    path = tmp_path / "pool.json"
    with pytest.raises(UserError, match="no such file"):
        open_pool(DataConfig(records=str(path)))
    path.write_bytes(b'[{"id": "\xff"}]')
    with pytest.raises(UserError, match="not UTF-8"):
        open_pool(DataConfig(records=str(path)))


def test_records_larger_than_the_reading_window(tmp_path, monkeypatch):
    monkeypatch.setattr("prism_tune.data.files.json_text._CHUNK_CHARACTERS", 7)
    records = [make(answer="ä" * 50), make("x <image>")]
    assert open_records(tmp_path, records)[0].turns[1].text == "ä" * 50


def test_a_number_across_two_windows_is_one_value(tmp_path, monkeypatch):
    monkeypatch.setattr("prism_tune.data.files.json_text._CHUNK_CHARACTERS", 3)
    path = tmp_path / "pool.json"
    path.write_text("[12345678]")
    with pytest.raises(UserError, match=r"1 bad record\n  not_an_object: .*got int"):
        open_pool(DataConfig(records=str(path)))


def test_image_paths(tmp_path):
    pool = open_records(tmp_path, [make(), make("hi", image=None)], image_dir=str(tmp_path))
    assert pool.image_paths(0) == [tmp_path / "coco" / "1.jpg"]
    assert pool.image_paths(1) == []


@pytest.mark.parametrize(
    "image", ["../1.jpg", "a/../../1.jpg", "/etc/passwd", "out/1.jpg", "..\\1"]
)
def test_image_paths_cannot_leave_the_folder(tmp_path, image):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    pool = open_records(tmp_path, [make(image=image)], image_dir=str(folder))
    with pytest.raises(UserError) as error:
        pool.image_paths(0)
    assert f"{tmp_path / 'pool.json'}: record 0 (id '1'): image {image!r}" in str(error.value)


def test_index_out_of_range(tmp_path):
    with pytest.raises(IndexError):
        open_records(tmp_path, [make()])[1]


def test_subset_of_json_keeps_bytes_and_hash(tmp_path):
    path = tmp_path / "pool.json"
    big = b'{"conversations": [{"from":"human","value":"\\u00e4"},{"from":"gpt","value":"b"}],'
    big += b' "n": 123456789012345678901234567890, "x": 1.10, "deep": {"k": [null, true]}}'
    path.write_bytes(b"[" + orjson.dumps(make()) + b", " + big + b"]")
    pool = open_pool(DataConfig(records=str(path)))
    digest = write_subset(pool, [1], tmp_path / "subset.json")
    written = (tmp_path / "subset.json").read_bytes()
    assert written == b"[\n" + big + b"\n]\n"
    assert digest == hashlib.sha256(written).hexdigest()


def test_subset_of_jsonl_is_jsonl(tmp_path):
    pool = open_records(tmp_path, [make(), make("b <image>", k=[1])], name="pool.jsonl")
    write_subset(pool, [1], tmp_path / "subset.jsonl")
    assert (tmp_path / "subset.jsonl").read_text() == json.dumps(make("b <image>", k=[1])) + "\n"


def test_empty_subset_is_an_empty_list(tmp_path):
    pool = open_records(tmp_path, [make()])
    write_subset(pool, [], tmp_path / "subset.json")
    assert (tmp_path / "subset.json").read_text() == "[]\n"


def test_positions_count_bad_records(tmp_path):
    pool = open_records(
        tmp_path, [make(answer=""), make(), make("b <image>")], policy={"empty_answer": "skip"}
    )
    assert pool.positions([1, 0]) == [2, 1]


def test_a_pool_travels_to_worker_processes(tmp_path):
    pool = open_records(tmp_path, [make()])
    assert pickle.loads(pickle.dumps(pool))[0] == pool[0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda t: "<image>" not in t)


def is_plain(keys):
    """Not what the reader takes for a system line, or for an image that nothing reads."""
    try:
        refuse_media(keys, COLUMNS)
        refuse_unread(keys, frozenset())
    except BadRecordError:
        return False
    return keys.keys().isdisjoint({"image", "images", "source", "system"})


COLUMNS = build_columns(DataConfig(records=""))
RECORDS = st.builds(
    lambda question, answer, extra: {**extra, **make("q" + question, "a" + answer, image=None)},
    TEXTS,
    TEXTS,
    st.dictionaries(st.text(), VALUES).filter(is_plain),
)


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(RECORDS, min_size=1, max_size=5), name=st.sampled_from(["p.json", "p.jsonl"])
)
def test_round_trip_is_lossless(records, name):
    with tempfile.TemporaryDirectory() as folder:
        tmp_path = Path(folder)
        pool = open_records(tmp_path, records, name=name)
        write_subset(pool, range(len(pool)), tmp_path / "subset")
        again = open_pool(DataConfig(records=str(tmp_path / "subset")))
        assert [again.raw(i) for i in range(len(again))] == records
        assert again.uids == pool.uids
        assert [again[i] for i in range(len(again))] == [pool[i] for i in range(len(pool))]


def test_a_lone_surrogate_in_an_id_or_source_is_shown_as_its_escape(tmp_path):
    """No file can hold it; in a turn or an image name the record is bad."""
    records = [
        {
            "id": "a\ud800",
            "source": "b\udfff",
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        },
        {"id": "c\ud800", "conversations": []},
    ]
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(records))
    pool = open_pool(DataConfig(records=str(path), policy={"no_conversations": "skip"}))
    assert (pool.ids, pool.sources) == (["a\\ud800"], ["b\\udfff"])
    assert [item.id for item in pool.skipped] == ["c\\ud800"]
