"""Which files of a folder are its pool: no held-out record comes in unasked, and none is lost."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError


def record(name):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": name}]
    return {"id": name, "conversations": turns}


def write(folder, *names):
    """Each file of one record, called as the file is."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([record(name)]), path)
        else:
            text = json.dumps([record(name)] if name.endswith(".json") else record(name))
            path.write_text(text + "\n")
    return str(folder)


def read_ids(records):
    return open_pool(DataConfig(records=records)).ids


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("pool.jsonl", "test.jsonl"), "test"),
        (("pool.jsonl", "test/x.jsonl"), "test"),
        (("pool.jsonl", "a/Test/x.jsonl"), "test"),
        (("more.parquet", "train-0.parquet"), "train"),
        (("pool.json", "pool_eval.json"), "eval"),
        (("pool.jsonl", "pool.val.jsonl.gz.jsonl"), "val"),
        (("pool.jsonl", "test2.jsonl"), "test"),
        (("a_train/0.jsonl", "b/0.jsonl"), "train"),
    ],
)
def test_a_split_beside_files_of_none_is_refused(tmp_path, names, named):
    folder = write(tmp_path / "pool", *names)
    others = [name for name in names if read_ids(f"{folder}:{named}") != [name]]
    with pytest.raises(UserError) as error:
        read_ids(folder)
    assert str(error.value) == (
        f"data.records: {folder} holds files of a split beside others ({others[0]}); name one: "
        f"{folder}:{named}, or a file"
    )


def test_splits_at_the_end_of_names_are_splits(tmp_path):
    folder = write(tmp_path / "pool", "pool_train.jsonl", "pool_test.jsonl")
    with pytest.raises(UserError) as error:
        read_ids(folder)
    assert str(error.value) == (
        f"data.records: {folder} holds several splits; name one: {folder}:test, {folder}:train"
    )
    assert read_ids(f"{folder}:train") == ["pool_train.jsonl"]


@pytest.mark.parametrize(
    "names",
    [
        ("pool_train_0.jsonl", "pool_train_1.jsonl"),
        ("train/kitchen_test_bench.jsonl", "train/shop.jsonl"),
        ("latest.jsonl", "trained.jsonl"),
        ("devices.jsonl", "protest.jsonl"),
    ],
)
def test_files_of_one_split_or_of_none_are_all_read(tmp_path, names):
    assert read_ids(write(tmp_path / "pool", *names)) == sorted(names)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_records_in_json_beside_another_kind_are_refused(tmp_path, name):
    folder = write(tmp_path / "pool", name, "b.json")
    with pytest.raises(UserError, match=r"several kinds \(1 of \w+, 1 of json\); name a file, or"):
        read_ids(folder)
    lines = json.dumps(record("b")) + "\n" + json.dumps(record("c")) + "\n"
    (tmp_path / "pool/b.json").write_text(lines)
    with pytest.raises(UserError, match=r"several kinds \(1 of \w+, 1 of json\); name a file, or"):
        read_ids(folder)


def test_kinds_of_another_split_do_not_matter(tmp_path):
    folder = write(tmp_path / "pool", "train.jsonl", "test.json")
    assert read_ids(f"{folder}:train") == ["train.jsonl"]


def test_an_object_in_json_beside_another_kind_is_named_once(tmp_path, caplog):
    folder = write(tmp_path / "pool", "train.jsonl")
    (tmp_path / "pool/dataset_info.json").write_text(json.dumps({"pool": {}}, indent=1))
    (tmp_path / "pool/empty.json").write_text("")
    (tmp_path / "pool/sizes.json").write_text("[1, 2]")
    with caplog.at_level("INFO", logger="prism_tune"):
        assert read_ids(folder) == read_ids(folder) == ["train.jsonl"]
    said = [line for line in caplog.messages if "dataset_info" in line]
    assert said == [
        f"{folder}: no records are read of dataset_info.json, empty.json, sizes.json (no "
        "list nor lines of records, beside files that are)"
    ]


@pytest.mark.parametrize("indent", [None, 1])
def test_what_an_export_puts_beside_its_json_is_no_record(tmp_path, caplog, indent):
    """LLaMA-Factory's `dataset_info.json`; files of one record each stay the pool's."""
    folder = write(tmp_path / "pool", "my.json")
    info = json.dumps({"my": {"file_name": "my.json"}}, indent=indent)
    (tmp_path / "pool/dataset_info.json").write_text(info)
    assert read_ids(folder) == ["my.json"]
    assert f"{folder}: no records are read of dataset_info.json" in caplog.text
    (tmp_path / "pool/one.json").write_text(json.dumps(record("one")))
    assert read_ids(folder) == ["my.json", "one"]
