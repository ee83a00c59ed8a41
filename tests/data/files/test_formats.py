"""Files as other programs write them: their encodings, their nulls, and their damage."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from prism_tune.config.sections import DataConfig
from prism_tune.data.files import formats
from prism_tune.data.files.formats import take_parquet
from prism_tune.data.records import open_pool, write_subset
from prism_tune.errors import UserError

TURNS = [{"from": "human", "value": "q: ä ☃"}, {"from": "gpt", "value": "a"}]
FLAT = {"question": "q", "answer": "a"}
RECORDS = [{"id": str(number), "conversations": TURNS} for number in range(3)]
AS_LIST = json.dumps(RECORDS, ensure_ascii=False, indent=1)
AS_LINES = "\r\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS) + "\r\n"


def open_bytes(tmp_path, content, name="pool.json", **config):
    (tmp_path / name).write_bytes(content)
    return open_pool(DataConfig(records=str(tmp_path / name), **config))


@pytest.mark.parametrize("text", [AS_LIST, AS_LINES])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_encodings(tmp_path, text, encoding):
    pool = open_bytes(tmp_path, text.encode(encoding))
    assert pool.ids == ["0", "1", "2"]
    assert pool[2].turns[0].text == "q: ä ☃"
    write_subset(pool, [1], tmp_path / "subset.json")
    assert "q: ä ☃" in (tmp_path / "subset.json").read_text(encoding="utf-8")


PACKED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda text: pa.compress(text, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_files(tmp_path, suffix):
    packed = PACKED[suffix](AS_LINES.encode())
    pool = open_bytes(tmp_path, packed, name=f"pool.jsonl{suffix}")
    assert pool.ids == ["0", "1", "2"]
    write_subset(pool, [1], tmp_path / "subset.jsonl")
    assert json.loads((tmp_path / "subset.jsonl").read_text(encoding="utf-8")) == RECORDS[1]
    assert open_bytes(tmp_path, PACKED[suffix](AS_LIST.encode()), name="list").ids == pool.ids
    with pytest.raises(UserError, match=r"cut: .*(cannot be unpacked|not valid JSON)"):
        open_bytes(tmp_path, packed[: len(packed) // 2], name="cut")


@pytest.mark.parametrize("names", [("a.jsonl", "b/c.jsonl.gz"), ("a.json", "b/c.json")])
def test_a_folder_of_files_is_all_of_their_records(tmp_path, names):
    for name in names:
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        text = (AS_LINES if ".jsonl" in name else AS_LIST).encode()
        (tmp_path / "pool" / name).write_bytes(gzip.compress(text) if ".gz" in name else text)
    pool = open_pool(DataConfig(records=str(tmp_path / "pool")))
    assert (pool.ids, pool.format) == (["0", "1", "2"] * 2, "jsonl")
    assert pool.image_dir == tmp_path / "pool"
    (tmp_path / "pool" / names[1]).write_bytes(b"[]")
    assert len(open_pool(DataConfig(records=str(tmp_path / "pool")))) == 3


def test_one_object_over_several_lines_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"line 1: .*expected a record a line, or a list of rec"):
        open_bytes(tmp_path, json.dumps(RECORDS[0], indent=1).encode())


def test_marks_between_joined_files(tmp_path):
    lines = [json.dumps(record).encode() for record in RECORDS]
    content = b"".join(b"\xef\xbb\xbf" + line + b"\n" for line in lines)
    assert len(open_bytes(tmp_path, content)) == 3


def test_a_file_of_another_encoding_is_named(tmp_path):
    with pytest.raises(UserError, match="not UTF-8: 'utf-8' codec"):
        open_bytes(tmp_path, b'[{"id": "\xe4"}]')
    with pytest.raises(UserError, match="not UTF-16: "):
        open_bytes(tmp_path, AS_LIST.encode("utf-16")[:-3])


@pytest.mark.parametrize("name", ["pool.json", "pool.jsonl"])
def test_nan_is_null(tmp_path, name):
    """What json.dump writes for pandas' missing values."""
    record = {"id": float("nan"), "image": float("nan"), "source": float("nan")}
    record |= {"system": float("nan"), "conversations": TURNS}
    text = json.dumps([record]) if name == "pool.json" else json.dumps(record)
    assert "NaN" in text
    pool = open_bytes(tmp_path, text.encode(), name)
    assert (pool.ids, pool.sources, pool[0].images) == (["0"], ["text"], ())


@pytest.mark.parametrize(
    ("template", "place"), [("[%s]", "record 0"), ("%s", "line 1")], ids=["list", "lines"]
)
def test_numbers_beyond_pythons_limit(tmp_path, template, place):
    record = '{"id": ' + "1" * 5000 + "}"
    with pytest.raises(UserError) as error:
        open_bytes(tmp_path, (template % record).encode())
    expected = f"{place}: a number of more than 4,300 digits, which is not read"
    assert str(error.value) == f"{tmp_path / 'pool.json'}: {expected}"


def test_deep_nesting_is_named(tmp_path):
    with pytest.raises(UserError, match="line 1: lists and objects are nested too deeply"):
        open_bytes(tmp_path, b'{"a": ' + b"[" * 100_000)


def test_a_record_beyond_the_limit_of_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr("prism_tune.data.files.json_text._CHUNK_CHARACTERS", 100)
    monkeypatch.setattr("prism_tune.data.files.json_text._LARGEST_RECORD_CHARACTERS", 1000)
    large = [RECORDS[0], {**RECORDS[1], "note": "x" * 2000}]
    with pytest.raises(UserError) as error:
        open_bytes(tmp_path, json.dumps(large).encode())
    assert "record 1: over 1,000 characters, the most that a record of a JSON list" in str(
        error.value
    )
    lines = "\n".join(map(json.dumps, large)).encode()
    assert len(open_bytes(tmp_path, lines, "pool.jsonl")) == 2


def write_parquet(path, records=RECORDS):
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=1, compression="none")
    return path.read_bytes()


def test_parquet_without_its_suffix(tmp_path):
    content = write_parquet(tmp_path / "pool.parquet")
    assert open_bytes(tmp_path, content, "pool.bin").format == "parquet"


PART = pa.struct([("type", pa.binary()), ("text", pa.binary()), ("image", pa.binary())])
UNTYPED = pa.schema(
    [("id", pa.binary()), ("source", pa.binary()), ("image", pa.list_(pa.binary())),
     ("messages", pa.list_(pa.struct([("role", pa.binary()), ("content", pa.list_(PART))])))]
)  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(99))


def test_text_without_its_type_is_text_and_only_images_are_images(tmp_path, monkeypatch):
    """As Spark and Impala write parquet: strings are bytes without a mark."""
    monkeypatch.setenv("PRISM_TUNE_POOL_CACHE", str(tmp_path / "pools"))
    asked = [{"type": b"image", "image": PNG}, {"type": b"text", "text": "q: ä".encode()}]
    turns = [
        {"role": b"user", "content": asked},
        {"role": b"assistant", "content": [{"type": b"text", "text": b"a"}]},
    ]
    rows = [
        {"id": b"7", "source": b"vqa", "image": None, "messages": turns},
        {"id": b"8", "source": b"vqa", "image": [b"vg/\xc3\xa4.png"], "messages": [
            {"role": b"user", "content": [{"type": b"text", "text": b"<image>q"}]}, turns[1]]},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=UNTYPED), tmp_path / "pool.parquet")
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.parquet"), image_place="keep"))
    assert (pool.ids, pool.sources) == (["7", "8"], ["vqa", "vqa"])
    assert [turn.text for turn in pool[0].turns] == ["<image>\nq: ä", "a"]
    assert pool.image_paths(0)[0].read_bytes() == PNG
    assert pool[1].images == ("vg/ä.png",)
    assert len(list((tmp_path / "pools/embedded").rglob("*.*"))) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**FLAT, "answer": b"caf\xe9"}, "bad_field"),  # Latin-1
        ({**FLAT, "question": PNG}, "bad_field"),
        ({"messages": [{"role": "user", "content": b"\xff"}]}, "bad_field"),
        ({"messages": [{"role": "user", "content": "q", "mask": PNG}]}, "image_unread"),
        ({**FLAT, "choices": [b"\xff", b"x"]}, "bad_field"),
    ],
)
def test_bytes_that_are_no_text_are_no_file_name_either(tmp_path, row, reason):
    answer = {"role": "assistant", "content": "a"}
    if "messages" in row:
        row = {"messages": [*row["messages"], answer]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "pool.parquet")
    with pytest.raises(UserError, match=rf"{reason}: record 0 .*(expected|holds an image)"):
        open_pool(DataConfig(records=str(tmp_path / "pool.parquet")))


def test_a_subset_with_images_is_written_a_few_rows_at_a_time(tmp_path, monkeypatch):
    """In groups that do not depend on how the pool was cut, and the same from a shuffled copy."""
    rows = [{"image": {"bytes": bytes([n % 251]) * 9, "path": None}, **FLAT} for n in range(300)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "pool.parquet")
    pq.write_table(table.take(list(range(300))[::-1]), tmp_path / "copy.parquet", row_group_size=7)
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.parquet")))
    copy = open_pool(DataConfig(records=str(tmp_path / "copy.parquet")))
    digest = write_subset(copy, range(299, 10, -1), tmp_path / "shuffled.parquet")
    monkeypatch.setattr(pq, "read_table", None)
    assert write_subset(pool, range(289), tmp_path / "subset.parquet") == digest
    with pq.ParquetFile(tmp_path / "subset.parquet") as file:
        assert file.read().to_pylist() == rows[:289]
        assert file.num_row_groups == 3


def test_rows_are_taken_of_more_text_than_offsets_of_32_bits_reach(tmp_path):
    """2.4 GB as read, of one text that the file holds a few times."""
    turns = [[{"from": "human", "value": "x" * 65_536}]] * 4096
    group = pa.table({"id": range(4096), "conversations": turns})
    with pq.ParquetWriter(tmp_path / "pool.parquet", group.schema) as file:
        for _ in range(9):
            file.write_table(group)
    schema, tables = take_parquet(tmp_path / "pool.parquet", [1, 9 * 4096 - 1])
    assert schema == group.schema
    assert [row["id"] for table in tables for row in table.to_pylist()] == [1, 4095]


@pytest.mark.parametrize("positions", [range(0, 3000, 2), [*range(2999, 99, -1), 7, 7]])
def test_a_parquet_subset_is_the_same_however_its_pool_is_cut(tmp_path, positions):
    """As if all had been taken at once: published subsets are compared by their bytes."""
    write_parquet(tmp_path / "one.parquet", [{**RECORDS[n % 3], "id": str(n)} for n in range(3000)])
    pool = pq.read_table(tmp_path / "one.parquet")
    pq.write_table(pool.take(list(positions)), tmp_path / "expected.parquet")
    for num_rows in (7, 3000):
        pq.write_table(pool, tmp_path / "pool.parquet", row_group_size=num_rows)
        taken = take_parquet(tmp_path / "pool.parquet", positions)
        formats.write_parquet(tmp_path / "subset.parquet", *taken)
        expected = (tmp_path / "expected.parquet").read_bytes()
        assert (tmp_path / "subset.parquet").read_bytes() == expected


@pytest.mark.parametrize("kept", [0, 3, 4, 300, -1, -8, -40])
def test_truncated_parquet(tmp_path, kept):
    content = write_parquet(tmp_path / "whole.parquet")[:kept]
    with pytest.raises(UserError) as error:
        open_bytes(tmp_path, content, "pool.parquet")
    assert "not a parquet file, or a damaged one: " in str(error.value)
    assert "\n" not in str(error.value)


def test_parquet_damaged_inside(tmp_path):
    content = bytearray(write_parquet(tmp_path / "whole.parquet"))
    metadata = pq.ParquetFile(tmp_path / "whole.parquet").metadata
    start = metadata.row_group(1).column(0).data_page_offset
    content[start : start + 30] = b"\xff" * 30
    with pytest.raises(UserError) as error:
        open_bytes(tmp_path, bytes(content), "pool.parquet")
    assert str(tmp_path / "pool.parquet") in str(error.value)
    assert "damaged" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("conversations", "reason"),
    [(3, "no_conversations"), ("text", "no_conversations"), ([1], "bad_field")],
)
def test_parquet_columns_of_wrong_types_are_a_reason(tmp_path, conversations, reason):
    write_parquet(tmp_path / "pool.parquet", [{"id": 1, "conversations": conversations}])
    with pytest.raises(UserError, match=rf"1 bad record\n  {reason}: record 0 \(id '1'\)"):
        open_pool(DataConfig(records=str(tmp_path / "pool.parquet")))


def test_a_damaged_dataset_is_one_line(tmp_path):
    Dataset.from_list(RECORDS).save_to_disk(tmp_path / "pool")
    (arrow,) = (tmp_path / "pool").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:200])
    with pytest.raises(UserError, match=r"data\.records: .*pool") as error:
        open_pool(DataConfig(records=str(tmp_path / "pool")))
    assert "\n" not in str(error.value)
    (tmp_path / "pool/state.json").write_text("{")
    with pytest.raises(UserError, match="neither a file nor a dataset that can be read"):
        open_pool(DataConfig(records=str(tmp_path / "pool")))


def test_a_dataset_with_damaged_offsets_is_one_line(tmp_path):
    """Arrow maps a file as it is: offsets that lead elsewhere were a crash."""
    Dataset.from_list(RECORDS).save_to_disk(tmp_path / "pool")
    (arrow,) = (tmp_path / "pool").glob("*.arrow")
    content = arrow.read_bytes()
    offsets = b"".join(number.to_bytes(4, "little") for number in range(4))  # of the ids
    assert content.count(offsets) >= 1
    arrow.write_bytes(content.replace(offsets, offsets[:4] + b"\xff" * 4 + offsets[8:]))
    with pytest.raises(UserError, match=r"data\.records: .*pool: damaged: ") as error:
        open_pool(DataConfig(records=str(tmp_path / "pool")))
    assert "\n" not in str(error.value)
