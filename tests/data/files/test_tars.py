"""Webdataset tars: every file of every sample is read, or its record says what cannot be."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset, load_dataset_builder
from PIL import Image

from prism_tune.config.sections import DataConfig
from prism_tune.data.policy import REASONS
from prism_tune.data.records import open_pool, write_subset
from prism_tune.errors import UserError


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))


def draw(shade, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def talk(question="q"):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "a"}]


def pack(samples):
    """A tar of (key, {suffix: content}); what is no bytes as JSON."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for key, files in samples:
            for suffix, content in files.items():
                if not isinstance(content, bytes):
                    content = json.dumps(content).encode()
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


FIRST = [
    (f"{n:03d}", {"png": draw(n), "json": {"image": f"f/{n}.png", "conversations": talk(f"q{n}")}})
    for n in range(6)
]


def open_tar(tmp_path, *samples, name="pool.tar", **config):
    (tmp_path / name).write_bytes(pack(samples))
    return open_pool(DataConfig(records=str(tmp_path / name), num_workers=0, **config))


def open_late(tmp_path, files, **config):
    """Six samples of one picture, then `files`: the record of these."""
    pool = open_tar(tmp_path, *FIRST, ("006", files), **config)
    assert len(pool) == 7
    assert [len(pool.images(n)) for n in range(6)] == [1] * 6
    return pool, pool[6]


def shown(pool, index):
    return [path.read_bytes() for path in pool.image_paths(index)]


def refusal(tmp_path, files, **config):
    """The reason and the detail of a sample that is refused."""
    policy = dict.fromkeys(REASONS, "skip")
    pool = open_tar(tmp_path, *FIRST, ("006", files), policy=policy, **config)
    assert len(pool) == 6
    (skipped,) = pool.skipped
    assert pool.skipped_sources == ["(unreadable)"]
    assert skipped.detail.startswith("record 6 (id '006'): ")
    return skipped.reason, skipped.detail.removeprefix("record 6 (id '006'): ")


def test_pictures_of_another_suffix_in_a_later_tar_are_read(tmp_path):
    late = [
        (f"1{n:02d}", {"jpg": draw(90 + n, "JPEG"), "json": {"conversations": talk(f"p{n}")}})
        for n in range(6)
    ]
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/00000.tar").write_bytes(pack(FIRST))
    (tmp_path / "shards/00001.tar").write_bytes(pack(late))
    pool = open_pool(DataConfig(records=str(tmp_path / "shards"), num_workers=0))
    assert [len(pool.images(n)) for n in range(12)] == [1] * 12
    assert [shown(pool, 6 + n) for n in range(6)] == [[draw(90 + n, "JPEG")] for n in range(6)]
    assert pool.ids == [f"{n:03d}" for n in range(6)] + [f"1{n:02d}" for n in range(6)]
    assert pool.sources == ["f"] * 6 + ["images"] * 6


@pytest.mark.parametrize(
    "suffixes", [("0.png", "1.png"), ("png", "1.png"), ("1.png", "2.jpg"), ("v_9.png", "v_10.png")]
)
def test_several_pictures_of_a_later_sample_are_read_by_number(tmp_path, suffixes):
    files = {suffix: draw(50 + n) for n, suffix in enumerate(suffixes)}
    files = dict(reversed(files.items()))
    pool, _ = open_late(tmp_path, {**files, "json": {"conversations": talk("what differs?")}})
    assert shown(pool, 6) == [draw(50), draw(51)]
    named = {"image": ["a", "b"], "conversations": talk("what differs?")}
    pool, _ = open_late(tmp_path, {**files, "json": named})
    assert shown(pool, 6) == [draw(50), draw(51)]


def test_keys_that_only_a_later_sample_has_are_read(tmp_path):
    turns = [*talk("q"), *talk("p")]
    turns[1] = {**turns[1], "loss": False}
    record = {"system": "Be brief.", "conversations": turns}
    _, read = open_late(tmp_path, {"png": draw(9), "json": record})
    assert read.system == "Be brief."
    assert [turn.has_loss for turn in read.turns] == [True, False, True, True]


def test_parts_of_a_message_name_files_of_their_sample(tmp_path):
    def say(*content):
        asked = {"role": "user", "content": list(content)}
        return {"messages": [asked, {"role": "assistant", "content": "a"}]}

    text = {"type": "text", "text": "which?"}
    first, second = ({"type": "image", "image": f"x/{name}.png"} for name in "ba")
    pool, read = open_late(tmp_path, {"png": draw(9), "json": say({"type": "image"}, text)})
    assert (read.turns[0].text, shown(pool, 6)) == ("<image>\nwhich?", [draw(9)])
    pool, read = open_late(tmp_path, {"png": draw(9), "json": say(first, text)})
    assert (read.turns[0].text, shown(pool, 6)) == ("<image>\nwhich?", [draw(9)])
    url = {"type": "image_url", "image_url": {"url": "x/b.png"}}
    files = {"a.png": draw(1), "b.png": draw(2)}
    for record in (say(url, second), {**say(url, second), "images": ["a.png", "b.png"]}):
        pool, read = open_late(tmp_path, {**files, "json": record})
        assert shown(pool, 6) == [draw(2), draw(1)]
    reason = refusal(tmp_path, {"png": draw(9), "json": say(first, second)})
    assert reason == ("image_count", "the JSON names 2 images, the tar holds 1 (png)")


@pytest.mark.parametrize(
    ("files", "reason", "detail"),
    [
        (
            {"mp4": b"xxxx", "json": {"conversations": talk()}},
            "unsupported_medium",
            "006.mp4; only images and text are read",
        ),
        (
            {"png": draw(9), "wav": b"xxxx", "json": {"conversations": talk()}},
            "unsupported_medium",
            "006.wav; only images and text are read",
        ),
        (
            {"png": b"", "json": {"conversations": talk()}},
            "image_empty",
            "006.png: the file is empty",
        ),
        (
            {"png": draw(9), "json": {"image": ["a", "b"], "conversations": talk()}},
            "image_count",
            "the JSON names 2 images, the tar holds 1 (png)",
        ),
        (
            {"jpg": draw(9), "seg.png": draw(8), "json": {"image": "a", "conversations": talk()}},
            "image_count",
            "the JSON names 1 image, the tar holds 2 (jpg, seg.png); "
            "data.columns.image=jpg reads that one alone",
        ),
        (
            {"jpg": draw(9), "seg.png": draw(8), "json": {"conversations": talk()}},
            "bad_field",
            "several images whose order nothing tells (jpg, seg.png): expected numbers (0.png, "
            "1.png), or their names in the JSON; data.columns.image=jpg reads that one alone",
        ),
        (
            {"l.png": draw(9), "r.png": draw(8), "json": {"image": ["a", "b"], "messages": []}},
            "bad_field",
            "several images whose order nothing tells (l.png, r.png): expected numbers (0.png, "
            "1.png), or their names in the JSON; data.columns.image=l.png reads that one alone",
        ),
        (
            {"png": draw(9), "json": {"image": "a", "images": ["b"], "conversations": talk()}},
            "bad_field",
            "`image` or `images`: they hold different images; remove one",
        ),
        ({"png": draw(9), "json": talk()}, "not_an_object", "006.json: expected a JSON object"),
        ({"png": draw(9), "json": None}, "not_an_object", "006.json: expected a JSON object, got "),
        ({"json": b'{"a": '}, "bad_field", "006.json: not valid JSON: Expecting value"),
        ({"json": b'{"a": ' + b"[" * 100_000}, "bad_field", "006.json: lists and objects are nes"),
        ({"txt": b"\xff", "json": {}}, "bad_field", "006.txt: not UTF-8: "),
        ({"cls": b"x", "json": {}}, "bad_field", "006.cls: expected a whole number, got b'x'"),
    ],
)
def test_what_cannot_be_read_of_a_sample_is_its_reason(tmp_path, files, reason, detail):
    found = refusal(tmp_path, files)
    assert found[0] == reason
    assert found[1].startswith(detail), found[1]


def test_pictures_stand_in_the_order_of_their_names_in_the_json(tmp_path):
    named = {"conversations": talk("<image>\n<image>\nfirst?")}
    for names in (["b.png", "a.png"], ["x/b.jpg", "x\\a.jpg"], ["006.b.png", "006.a.png"]):
        files = {"a.png": draw(1), "b.png": draw(2), "json": {"image": names, **named}}
        pool, _ = open_late(tmp_path, files)
        assert shown(pool, 6) == [draw(2), draw(1)]


def test_the_configured_image_column_takes_the_tars_pictures(tmp_path):
    record = {"img": "x/a.png", "conversations": talk()}
    pool = open_tar(tmp_path, ("0", {"png": draw(7), "json": record}), columns={"image": "img"})
    assert (shown(pool, 0), pool.sources) == ([draw(7)], ["x"])
    files = {"jpg": draw(7, "JPEG"), "seg.png": draw(8), "json": {"conversations": talk()}}
    pool = open_tar(tmp_path, ("0", files), columns={"image": "jpg"})
    assert shown(pool, 0) == [draw(7, "JPEG")]
    del files["jpg"]
    with pytest.raises(
        UserError, match=r"image_unread: .*of its images \(seg\.png\) none is `jpg`"
    ):
        open_tar(tmp_path, ("0", files), columns={"image": "jpg"})
    for suffix in ("jfif", "rgb"):  # also where the content alone tells that it is a picture
        files = {suffix: draw(7), "z.png": draw(8), "json": {"conversations": talk()}}
        with pytest.raises(UserError, match=rf"data\.columns\.image={suffix} reads that one alone"):
            open_tar(tmp_path, ("0", files))
        pool = open_tar(tmp_path, ("0", files), columns={"image": suffix})
        assert shown(pool, 0) == [draw(7)]
    with pytest.raises(UserError, match=r"of its images \(z\.png\) none is `jfif`"):
        open_tar(tmp_path, ("0", {**files, "rgb": b""}), columns={"image": "jfif"})
    record = {"image": ["a", "b"], "conversations": talk()}
    with pytest.raises(UserError, match=r"names 2 images, the tar holds 1 \(image\)"):
        open_tar(tmp_path, ("0", {"image": draw(7), "json": record}))


def test_image_and_images_that_are_equal_are_one(tmp_path):
    record = {"image": "x/a.png", "images": ["x/a.png"], "conversations": talk()}
    pool = open_tar(tmp_path, ("0", {"png": draw(7), "json": record}))
    assert (shown(pool, 0), pool.sources) == ([draw(7)], ["x"])


def test_other_files_of_a_sample_are_columns(tmp_path):
    files = {"PNG": draw(7), "txt": "ä red square".encode(), "cls": b"3\n"}
    columns = {"question": "cls", "answer": "txt"}
    pool = open_tar(tmp_path, ("dir.x/0", files), columns=columns)
    assert [turn.text for turn in pool[0].turns] == ["<image>\n3", "ä red square"]
    assert (shown(pool, 0), pool.ids) == ([draw(7)], ["dir.x/0"])


def test_a_text_of_any_suffix_is_text(tmp_path):
    files = {"png": draw(7), "asked": b"What?", "caption": "ä red square".encode(), "pkl": b"\x80"}
    columns = {"question": "asked", "answer": "caption"}
    pool = open_tar(tmp_path, ("0", files), columns=columns)
    assert [turn.text for turn in pool[0].turns] == ["<image>\nWhat?", "ä red square"]
    with pytest.raises(UserError, match=r"bad_field: record 0 .*expected text, got b'\\x80"):
        open_tar(tmp_path, ("0", {**files, "caption": b"\x80"}), columns=columns)


@pytest.mark.parametrize("indices", [[1, 6], [6, 1]])
def test_a_subset_of_unlike_samples_is_the_same_records(tmp_path, indices):
    files = {"0.jpg": draw(70, "JPEG"), "1.png": draw(71), "json": {"conversations": talk("p")}}
    pool, _ = open_late(tmp_path, files)
    write_subset(pool, indices, tmp_path / "subset.parquet")
    again = open_pool(DataConfig(records=str(tmp_path / "subset.parquet"), num_workers=0))
    assert again.uids == [pool.uids[n] for n in indices]
    assert [shown(again, n) for n in range(2)] == [shown(pool, n) for n in indices]
    assert again.ids == [pool.ids[n] for n in indices]


def test_names_that_lead_out_write_nothing_there(tmp_path):
    (tmp_path / "pool").mkdir()
    record = {"image": "../../out.png", "conversations": talk()}
    pool = open_tar(tmp_path / "pool", ("../../out", {"png": draw(7), "json": record}))
    assert shown(pool, 0) == [draw(7)]
    assert pool.images(0)[0].startswith("embedded:")
    assert not list(tmp_path.rglob("out*"))


def damage(content, name="pool.tar"):
    def open_damaged(tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as error:
            open_pool(DataConfig(records=str(tmp_path / name)))
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        return str(error.value).removeprefix(f"{tmp_path / name}: ")

    return open_damaged


WHOLE = pack(FIRST)
HEADER = WHOLE.index(b"003.png")


@pytest.mark.parametrize(
    ("content", "name", "part"),
    [
        (b"", "pool.tar", "not a tar file, or a damaged one: the end's mark"),
        (b"no tar" * 200, "pool.tar", "not a tar file, or a damaged one: invalid header"),
        (WHOLE[: HEADER + 550], "pool.tar", "damaged or cut short in or behind sample '002'"),
        (WHOLE[: HEADER + 100], "pool.tar", "damaged or cut short in or behind sample '002'"),
        (
            WHOLE[:HEADER],
            "pool.tar",
            "damaged or cut short in or behind sample '002': the end's mark is missing",
        ),
        (
            WHOLE[:HEADER] + b"004" + WHOLE[HEADER + 3 :],
            "pool.tar",
            "damaged or cut short in or behind sample '002': bad checksum",
        ),
        (gzip.compress(WHOLE)[:-9], "pool.tar.gz", "damaged or cut short in or behind sample '00"),
        (WHOLE + pack(FIRST), "pool.tar", "further data behind the archive's end, as of tars"),
    ],
)
def test_a_damaged_tar_loses_no_sample_in_silence(tmp_path, content, name, part):
    assert damage(content, name)(tmp_path).startswith(part)


def test_packed_in_pieces(tmp_path):
    """As pigz and bgzip write it."""
    half = len(WHOLE) // 2
    packed = gzip.compress(WHOLE[:half]) + gzip.compress(WHOLE[half:])
    (tmp_path / "pool.tgz").write_bytes(packed)
    assert len(open_pool(DataConfig(records=str(tmp_path / "pool.tgz")))) == 6


def test_files_of_a_sample_that_do_not_stand_together_are_refused(tmp_path):
    """As `tar` packs a folder in no order: pictures here, their texts there."""
    apart = [("0", {"png": draw(1)}), ("1", {"png": draw(2)}), ("0", {"json": {}})]
    assert damage(pack(apart))(tmp_path) == (
        "the files of sample '0' do not stand together; pack them in order (tar --sort=name)"
    )
    twice = [("0", {"png": draw(1)}), ("0", {"png": draw(2)})]
    assert damage(pack(twice))(tmp_path) == "sample '0' has two files 0.png"


def test_a_link_is_refused_and_what_belongs_to_no_sample_is_named(tmp_path, caplog):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(__file__, "LICENSE")
        archive.add(__file__, "._000.png")
        folder = tarfile.TarInfo("dir")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        content = json.dumps({"conversations": talk()}).encode()
        member = tarfile.TarInfo("dir/0.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    (tmp_path / "pool.tar").write_bytes(file.getvalue())
    assert open_pool(DataConfig(records=str(tmp_path / "pool.tar"))).ids == ["dir/0"]
    assert f"{tmp_path / 'pool.tar'}: LICENSE belongs to no sample; it is not read" in caplog.text
    with tarfile.open(tmp_path / "pool.tar", "a") as archive:
        member = tarfile.TarInfo("dir/0.png")
        member.type, member.linkname = tarfile.LNKTYPE, "dir/1.png"
        archive.addfile(member)
    with pytest.raises(UserError, match=r"dir/0\.png is a link or no file; expected its content"):
        open_pool(DataConfig(records=str(tmp_path / "pool.tar")))


def test_a_sample_beyond_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("prism_tune.data.files.tars.LARGEST_SAMPLE_BYTES", 2000)
    bomb = gzip.compress(pack([*FIRST, ("006", {"json": b" " * 3000})]))
    assert damage(bomb, "pool.tar.gz")(tmp_path) == (
        "sample '006' has more than 2,000 bytes, the most that one may have; what stands before "
        "the first dot of a file's name tells its sample"
    )


def test_a_webdataset_of_the_hub_goes_the_same_way(tmp_path, monkeypatch):
    """Its builder says where the tars are; `datasets` itself would lose what differs."""
    (tmp_path / "hub").mkdir()
    late = ("006", {"jpg": draw(90, "JPEG"), "json": {"conversations": talk()}})
    (tmp_path / "hub/train-0.tar").write_bytes(pack([*FIRST, late]))
    (tmp_path / "hub/test-0.tar").write_bytes(pack(FIRST[:2]))
    asked = []

    def load_builder(name, part):
        asked.append(name)
        return load_dataset_builder(str(tmp_path / "hub"), cache_dir=str(tmp_path / "hf"))

    monkeypatch.setattr("datasets.load_dataset_builder", load_builder)
    monkeypatch.chdir(tmp_path)
    pool = open_pool(DataConfig(records="owner/name", num_workers=0))
    assert (len(pool), pool.format) == (7, "dataset")
    assert shown(pool, 6) == [draw(90, "JPEG")]
    assert len(open_pool(DataConfig(records="owner/name:test", num_workers=0))) == 2
    assert set(asked) == {"owner/name"}
    with pytest.raises(UserError, match=r"no split 'dev'; found owner/name:t"):
        open_pool(DataConfig(records="owner/name:dev"))


def test_samples_with_a_column_for_each_file_are_the_same_records(tmp_path):
    """As `datasets` makes them, and as subsets were written before."""
    (tmp_path / "pool.tar").write_bytes(pack(FIRST))
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.tar"), num_workers=0))
    options = {"data_files": str(tmp_path / "pool.tar"), "cache_dir": str(tmp_path / "hf")}
    rows = load_dataset("webdataset", split="train", **options)
    rows.to_parquet(tmp_path / "old.parquet")
    again = open_pool(DataConfig(records=str(tmp_path / "old.parquet"), num_workers=0))
    assert (again.uids, again.ids, again.sources) == (pool.uids, pool.ids, pool.sources)
    named = {"image": ["a", "b"], "conversations": talk()}
    held = {"bytes": draw(9), "path": "0.png"}
    unlike = [{"png": held, "json": named}, {"png": held, "mp4": held, "json": named}]
    table = pa.Table.from_pylist([{"__key__": str(n), **row} for n, row in enumerate(unlike)])
    pq.write_table(table.append_column("mp4", [[None, held]]), tmp_path / "old.parquet")
    with pytest.raises(UserError) as error:
        open_pool(DataConfig(records=str(tmp_path / "old.parquet")))
    assert "record 0 (id '0'): the JSON names 2 images, the tar holds 1 (png)" in str(error.value)
    assert "record 1 (id '1'): 1.mp4; only images and text are read" in str(error.value)
