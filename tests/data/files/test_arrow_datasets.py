"""Pools out of `datasets`: what save_to_disk wrote, folders of files, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from types import SimpleNamespace

import datasets
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from prism_tune.config.sections import DataConfig
from prism_tune.data.files.arrow_datasets import is_dataset
from prism_tune.data.records import open_pool, write_subset
from prism_tune.errors import UserError


def make(number):
    turns = [
        {"role": "user", "content": f"<image>\nwhat is {number}?"},
        {"role": "assistant", "content": f"a number, {number}"},
    ]
    return {"key": number, "file": f"coco/{number}.jpg", "talk": turns, "weight": number / 4}


ROWS = [make(number) for number in range(5)]
COLUMNS = {"id": "key", "image": "file", "conversations": "talk"}


def save_to_disk(folder):
    Dataset.from_list(ROWS).save_to_disk(folder)


def save_parquet(folder):
    folder.mkdir()
    for part, rows in enumerate((ROWS[:2], ROWS[2:])):
        Dataset.from_list(rows).to_parquet(folder / f"part-{part}.parquet")


def save_split(folder):
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(folder.parent / "splits")
    (folder.parent / "splits" / "train").rename(folder)


def save_arrow_file(path):
    Dataset.from_list(ROWS).save_to_disk(path.parent / "saved")
    next((path.parent / "saved").glob("*.arrow")).rename(path)


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (save_to_disk, "pool"),
        (save_parquet, "pool"),
        (save_split, "pool"),
        (save_arrow_file, "pool.arrow"),
    ],
)
def test_a_dataset_is_a_pool_and_its_subset_a_parquet_file(tmp_path, save, name):
    save(tmp_path / name)
    pool = open_pool(DataConfig(records=str(tmp_path / name), columns=COLUMNS))
    assert pool.format == "dataset"
    assert pool.ids == ["0", "1", "2", "3", "4"]
    assert pool.sources == ["coco"] * 5
    assert pool.image_dir == (tmp_path if name.endswith(".arrow") else tmp_path / name)
    assert pool[3].images == ("coco/3.jpg",)
    assert [turn.text for turn in pool[3].turns] == ["<image>\nwhat is 3?", "a number, 3"]
    write_subset(pool, [1, 3], tmp_path / "subset.parquet")
    assert pq.read_table(tmp_path / "subset.parquet").to_pylist() == [ROWS[1], ROWS[3]]
    again = DataConfig(records=str(tmp_path / "subset.parquet"), columns=COLUMNS)
    assert open_pool(again).uids == [pool.uids[1], pool.uids[3]]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ("liuhaotian/LLaVA-Instruct-150K", True),
        ("owner/name:validation", True),
        ("owner/name:ai2d(cauldron,llava_format):train", True),
        ("owner/name:a:b:train", False),
        ("owner/name::train", False),
        ("data/missing.json", False),
        ("data/missing.parquet", False),
        ("data/missing.arrow", False),
        ("/absolute/path/pool", False),
        ("missing", False),
    ],
)
def test_hub_ids_are_told_from_files(records, expected):
    assert is_dataset(records) is expected


def test_a_hub_id_is_loaded_with_its_split(monkeypatch):
    asked = []

    def load_dataset(name, part, *, split, keep_in_memory):
        asked.append((name, part, split))
        raise FileNotFoundError("no network")

    builder = SimpleNamespace(name="parquet")
    monkeypatch.setattr("datasets.load_dataset_builder", lambda name, part: builder)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    for records in ("owner/name", "owner/name:validation", "owner/name:vqa(x):test"):
        with pytest.raises(
            UserError, match=rf"'{re.escape(records)}' is neither a file nor a dataset"
        ):
            open_pool(DataConfig(records=records))
    assert asked == [
        ("owner/name", None, "train"),
        ("owner/name", None, "validation"),
        ("owner/name", "vqa(x)", "test"),
    ]


PICTURE = {"bytes": b"\x89PNG\r\n\x1a\n", "path": None}
CAULDRON = {
    name: [
        {
            "images": [{**PICTURE, "bytes": PICTURE["bytes"] + bytes([number])}],
            "texts": [{"user": f"{name} {number}?", "assistant": "yes", "source": source}],
        }
        for number in range(2 + len(name))
    ]
    for name, source in (("ai2d", "AI2D"), ("tqa", None))
}


@pytest.fixture
def cauldron(tmp_path, monkeypatch):
    """A dataset of two configurations, in a folder as `hf download` makes it, and as a hub id."""
    folder = tmp_path / "cauldron"
    listed = ["---", "configs:"]
    for name, rows in CAULDRON.items():
        for part, some in enumerate((rows[:3], rows[3:])):
            Dataset.from_list(some).to_parquet(folder / f"{name}/train-{part}-of-2.parquet")
        listed += [f"- config_name: {name}", f"  data_files: {name}/train-*"]
    (folder / "README.md").write_text("\n".join([*listed, "---", ""]))
    for asked in ("load_dataset", "load_dataset_builder"):
        real = getattr(datasets, asked)
        monkeypatch.setattr(
            datasets,
            asked,
            lambda name, *args, real=real, **options: real(
                str(folder) if name == "owner/cauldron" else name, *args, **options
            ),
        )
    return folder


def test_a_configuration_of_a_hub_id_is_named_before_its_split(cauldron):
    pool = open_pool(DataConfig(records="owner/cauldron:ai2d:train"))
    assert len(pool) == len(CAULDRON["ai2d"])
    assert set(pool.sources) == {"AI2D"}
    for records in ("owner/cauldron", "owner/cauldron:train", "owner/cauldron:vqa:train"):
        with pytest.raises(UserError) as error:
            open_pool(DataConfig(records=records))
        assert str(error.value) == (
            "data.records: owner/cauldron has several configurations; name one with its split, as "
            "owner/cauldron:CONFIGURATION:train, or fetch it (`hf download --repo-type dataset "
            "owner/cauldron --local-dir FOLDER`) and name that folder: configurations are its "
            "sources; found 'ai2d', 'tqa'"
        )


def test_configurations_in_a_folder_are_sources(cauldron):
    """A pair's own counts before it, as a record's does."""
    pool = open_pool(DataConfig(records=str(cauldron)))
    assert len(pool) == 11
    named = zip(pool.sources, (pool[n].turns[0].text for n in range(11)), strict=True)
    assert {(source, text.split()[-2]) for source, text in named} == {
        ("AI2D", "ai2d"),
        ("tqa", "tqa"),
    }
    by_folder = open_pool(DataConfig(records=str(cauldron), source="image_folder"))
    assert by_folder.sources == ["ai2d"] * 6 + ["tqa"] * 5
    assert open_pool(DataConfig(records=str(cauldron / "tqa"))).sources == ["images"] * 5


def save_lines(folder, rows):
    folder.mkdir(parents=True)
    rows = [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}] * 2
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))


def save_arrow(folder, rows):
    Dataset.from_list(rows).save_to_disk(folder)


def save_tar(folder, rows):
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, row in enumerate(rows):
            turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
            for suffix, content in (
                ("png", row["images"][0]["bytes"]),
                ("json", json.dumps({"conversations": turns}).encode()),
            ):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("save", [save_lines, save_arrow, save_tar])
def test_configurations_are_sources_whatever_their_files_are(tmp_path, save):
    rows = [{"images": [PICTURE], "texts": [{"user": "q", "assistant": "a"}]}] * 2
    for name in ("ai2d", "tqa"):
        save(tmp_path / "pool/data" / name, rows)
    assert open_pool(DataConfig(records=str(tmp_path / "pool"))).sources == [
        *("ai2d", "ai2d", "tqa", "tqa")
    ]


def test_shards_in_numbered_folders_are_no_sources(tmp_path):
    for number in range(2):
        save_lines(tmp_path / f"pool/shard-{number}", [])
    assert open_pool(DataConfig(records=str(tmp_path / "pool"))).sources == ["text"] * 4


def test_of_several_splits_one_is_named(tmp_path):
    """Whoever trains on a folder must not train on its test split unasked."""
    splits = {"train": Dataset.from_list(ROWS[:2]), "test": Dataset.from_list(ROWS[2:])}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    for name, dataset in splits.items():
        dataset.to_parquet(tmp_path / f"shards/data/{name}-00000-of-00001.parquet")
        dataset.to_json(tmp_path / f"lines/{name}/part.jsonl")
    for folder in ("saved", "shards", "lines"):
        records = str(tmp_path / folder)
        with pytest.raises(UserError, match=rf"several splits; name one: .*{folder}:t"):
            open_pool(DataConfig(records=records))
        pool = open_pool(DataConfig(records=f"{records}:train", columns=COLUMNS))
        assert pool.ids == ["0", "1"]
        assert pool.image_dir == tmp_path / folder
        write_subset(pool, [1], tmp_path / "subset")
        again = open_pool(DataConfig(records=str(tmp_path / "subset"), columns=COLUMNS))
        assert again.uids == pool.uids[1:]
        with pytest.raises(UserError, match=r"dev|several splits"):
            open_pool(DataConfig(records=f"{records}:dev"))
    DatasetDict({"train": splits["train"]}).save_to_disk(tmp_path / "one")
    assert len(open_pool(DataConfig(records=str(tmp_path / "one"), columns=COLUMNS))) == 2


def test_of_a_dataset_without_splits_none_can_be_named(tmp_path):
    """Whoever asks for a test split must not be given everything."""
    save_to_disk(tmp_path / "pool")
    with pytest.raises(UserError, match=r"pool: no split 'test'; it is one dataset"):
        open_pool(DataConfig(records=f"{tmp_path}/pool:test", columns=COLUMNS))
    Dataset.from_list(ROWS, split="train").save_to_disk(tmp_path / "own")
    assert len(open_pool(DataConfig(records=f"{tmp_path}/own:train", columns=COLUMNS))) == 5


@pytest.mark.parametrize("save", ["save_to_disk", "to_parquet"])
def test_a_small_dataset_that_is_held_in_memory_is_told_from_the_next(tmp_path, monkeypatch, save):
    """As HF_DATASETS_IN_MEMORY_MAX_SIZE asks for: no file would stand for either."""
    monkeypatch.setattr("datasets.config.IN_MEMORY_MAX_SIZE", 1 << 30)
    monkeypatch.setenv("PRISM_TUNE_POOL_CACHE", str(tmp_path / "pools"))
    folder = tmp_path / "pool"
    for rows, ids in ((ROWS[:2], ["0", "1"]), (ROWS[2:], ["2", "3", "4"])):
        shutil.rmtree(folder, ignore_errors=True)
        dataset = Dataset.from_list(rows)
        getattr(dataset, save)(folder if save == "save_to_disk" else folder / "a.parquet")
        assert open_pool(DataConfig(records=str(folder), columns=COLUMNS)).ids == ids


@pytest.mark.parametrize("save", [save_parquet, save_to_disk])
def test_brackets_in_a_name_are_no_pattern(tmp_path, save):
    folder = tmp_path / "pool [v2]*"
    save(folder)
    assert len(open_pool(DataConfig(records=str(folder), columns=COLUMNS))) == 5
    for path in folder.glob("*.arrow"):
        assert len(open_pool(DataConfig(records=str(path), columns=COLUMNS))) == 5


def test_a_folder_of_nothing_of_several_kinds_or_of_several_pools_is_refused(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="a folder without files of JSON, JSON lines, parquet"):
        open_pool(DataConfig(records=str(tmp_path / "nothing")))
    Dataset.from_list(ROWS).to_parquet(tmp_path / "mixed/a.parquet")
    (tmp_path / "mixed/README.json").write_text("{}")
    assert len(open_pool(DataConfig(records=str(tmp_path / "mixed"), columns=COLUMNS))) == 5
    Dataset.from_list(ROWS).to_json(tmp_path / "mixed/a.jsonl")
    with pytest.raises(UserError, match=r"several kinds \(1 of parquet, 1 of jsonl\); name a file"):
        open_pool(DataConfig(records=str(tmp_path / "mixed")))
    Dataset.from_list(ROWS).to_parquet(tmp_path / "two/a.parquet")
    Dataset.from_list([{"other": 1}]).to_parquet(tmp_path / "two/b.parquet")
    with pytest.raises(UserError, match="its files have different columns, so they are several"):
        open_pool(DataConfig(records=str(tmp_path / "two")))


def test_files_whose_columns_differ_inside_need_no_token(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    further = [{**turn, "loss": False} for turn in turns]
    Dataset.from_list([{"messages": turns}]).to_parquet(tmp_path / "pool/0.parquet")
    Dataset.from_list([{"messages": further}]).to_parquet(tmp_path / "pool/1.parquet")
    with pytest.raises(UserError) as error:
        open_pool(DataConfig(records=str(tmp_path / "pool")))
    assert str(error.value) == (
        f"data.records: '{tmp_path / 'pool'}' is neither a file nor a dataset that can be read: a "
        "column of its files is of one type here and of another there; name one file of it, or "
        "mend that"
    )
