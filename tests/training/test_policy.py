"""Training obeys `data.policy` as the audit and the selection do."""

from __future__ import annotations

import shutil

import pytest

from prism_tune.errors import UserError
from prism_tune.run.folder import read_json
from prism_tune.training.train import train


def test_records_with_broken_images_are_left_out_and_listed(make_run, drawn_pool, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(drawn_pool.parent / "images", images)
    (images / "3.png").unlink()
    config, run = make_run()
    data = config.data.model_copy(update={"image_dir": str(images)})
    with pytest.raises(UserError, match=r"1 bad record\n  image_missing: .*shape-3"):
        train(config.model_copy(update={"data": data}), run)
    data = data.model_copy(update={"policy": {"image_missing": "skip", "duplicate": "skip"}})
    train(config.model_copy(update={"data": data}), run)
    listed = read_json(run.training / "skipped.json")
    assert [(item["id"], item["reason"]) for item in listed] == [("shape-3", "image_missing")]
    assert read_json(run.training / "stage.json")["outputs"]["num_records"] == 25
