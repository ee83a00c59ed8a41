"""One and the same records, in every layout that pools come in."""

from __future__ import annotations

import io
import json
import tarfile

import datasets
import pytest
from support.pool_layouts import LAYOUTS, draw_records

from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool, write_subset

NUM_RECORDS = 3


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    return folder, draw_records(folder, NUM_RECORDS)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def open_layout(name, drawn, folder):
    """In a folder of its own, with a link to the images beside the records."""
    images, rows = drawn[0] / "images", drawn[1]
    (folder / "images").symlink_to(images)
    config = {"image_dir": str(images), "num_workers": 0, **LAYOUTS[name](folder, rows)}
    return open_pool(DataConfig(**config))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_holds_the_same_records(name, drawn, tmp_path):
    pool = open_layout(name, drawn, tmp_path)
    assert len(pool) == NUM_RECORDS
    assert pool.skipped == ()
    for index, row in enumerate(drawn[1]):
        record = pool[index]
        asked = f"<image>\n{row['question']}"
        assert [turn.text for turn in record.turns] == [asked, row["answer"]]
        assert record.system == ""
        found = pool.image_paths(index)
        assert [path.read_bytes() for path in found] == [
            (drawn[0] / "images" / row["name"]).read_bytes()
        ]
        assert record.images == tuple(pool.images(index))
    assert pool.image_index.findings == {}
    assert len(set(pool.image_index.hashes.values())) == NUM_RECORDS


@pytest.mark.parametrize("name", ["parquet_bytes", "saved_list", "webdataset", "openai_data_uri"])
def test_a_subset_of_records_that_hold_their_images_holds_them_too(name, drawn, tmp_path):
    pool = open_layout(name, drawn, tmp_path)
    subset = tmp_path / ("subset.jsonl" if pool.format == "jsonl" else "subset.parquet")
    write_subset(pool, [2, 0], subset)
    again = open_pool(DataConfig(records=str(subset), num_workers=0))
    assert again.uids == [pool.uids[2], pool.uids[0]]
    assert again.image_index.faults == {}


def test_a_sample_of_many_images_shows_them_in_the_order_of_their_numbers(tmp_path):
    """Each `<image>` of the text stands for the one of its place, also from the tenth on."""
    drawn = draw_records(tmp_path, 12)
    shown = [(tmp_path / "images" / row["name"]).read_bytes() for row in drawn]
    turns = [{"from": "human", "value": "<image>" * 12}, {"from": "gpt", "value": "a"}]
    named = {"image": [f"v/{n}.png" for n in range(12)], "conversations": turns}
    files = {f"7.{n}.png": content for n, content in enumerate(shown)}
    with tarfile.open(tmp_path / "pool.tar", "w") as archive:
        for name, content in {**files, "7.json": json.dumps(named).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.tar"), num_workers=0))
    assert [path.read_bytes() for path in pool.image_paths(0)] == shown


def test_images_with_bytes_are_written_once_per_content(drawn, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, name in zip(folders, ("parquet_bytes", "openai_data_uri"), strict=True):
        folder.mkdir()
        open_layout(name, drawn, folder)
    assert len(list((tmp_path / "cache/pools/embedded").rglob("*.png"))) == NUM_RECORDS
