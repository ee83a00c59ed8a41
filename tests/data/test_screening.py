"""Screening by several runs at a time."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config, DataConfig
from prism_tune.data import screening
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.models.processor import load_processor

NUM_RUNS = 16


def test_runs_over_one_pool_keep_its_lengths_at_the_same_moment(
    tiny_llava_dir, drawn_pool, tmp_path, monkeypatch
):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"{{name: a, model: {{path: {tiny_llava_dir}, template: chatml}}, data: {{records: "
        f"{drawn_pool}, image_dir: {drawn_pool.parent / 'images'}}}}}"
    )
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path))
    config = load_config(path)
    pool, processor = open_pool(config.data), load_processor(config.model)
    all_ready = threading.Barrier(NUM_RUNS)
    lengths = estimate_lengths(pool, range(len(pool)), processor, config.model.template)

    def estimate_and_wait(*arguments):
        all_ready.wait(60)
        return lengths

    monkeypatch.setattr(screening, "estimate_lengths", estimate_and_wait)
    with ThreadPoolExecutor(NUM_RUNS) as runs:
        found = list(
            runs.map(lambda _: screening.screen_pool(pool, config, processor), range(NUM_RUNS))
        )
    for verdict in found:
        np.testing.assert_array_equal(verdict.lengths_N, lengths)
    assert len(list(tmp_path.rglob("lengths-*"))) == 1


def test_a_record_is_bad_once_however_much_is_wrong_with_it(tmp_path):
    """With the keys of all that would have to be left out."""
    turns = [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "cut.png").write_bytes(b"")
    records = [{"image": [f"{n}.png", f"{n}b.png"], "conversations": turns} for n in range(3)]
    records[2]["image"][1] = "cut.png"
    (tmp_path / "pool.json").write_text(json.dumps(records))
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.json"), num_workers=0))
    with pytest.raises(UserError) as error:
        screening.judge(pool, screening.screen_records(pool), {})
    head, *listed, last = str(error.value).splitlines()
    assert head == f"{tmp_path / 'pool.json'}: 3 bad records"
    named = [f"{n}.png: no such image file" for n in range(3)]
    assert [line.rpartition("/")[2] for line in listed] == named
    assert last.endswith("with data.policy.image_empty=skip data.policy.image_missing=skip")


def test_lengths_are_kept_for_pictures_and_records_not_for_a_folder(
    tiny_llava_dir, drawn_pool, tmp_path, monkeypatch
):
    """Some models give images of different sizes different lengths."""
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(drawn_pool.parent, tmp_path / "pool")
    shutil.copytree(drawn_pool.parent, tmp_path / "moved")
    estimated = []

    def watch(pool, indices, processor, template):
        estimated.append(pool.image_dir.parent.name)
        return estimate_lengths(pool, indices, processor, template)

    monkeypatch.setattr(screening, "estimate_lengths", watch)

    def screen(images, **data):
        data = {"records": str(drawn_pool), "image_dir": str(images), "num_workers": 0, **data}
        model = {"path": str(tiny_llava_dir), "template": "vicuna_v1"}
        config = Config.model_validate({"name": "a", "model": model, "data": data})
        processor = load_processor(config.model)
        screening.screen_pool(open_pool(config.data), config, processor)

    screen(tmp_path / "pool" / "images")
    screen(tmp_path / "moved" / "images")
    assert estimated == ["pool"]
    Image.new("RGB", (300, 40)).save(tmp_path / "moved" / "images" / "3.png")
    screen(tmp_path / "moved" / "images")
    assert estimated == ["pool", "moved"]
    screen(tmp_path / "pool" / "images", source="image_folder")
    assert estimated == ["pool", "moved", "pool"]
