"""Every family from the pool to an export, by its own processor: `make test-torchvision` runs it.

Records have one image, several apart, several between words, and none.
"""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from support.tiny_families import TINY_FAMILIES
from support.tiny_runs import draw_questions, tiny_config
from support.whole_families import draw_mixed_pool, save_whole_family
from transformers import AutoModelForImageTextToText, AutoProcessor

from prism_tune.config.sections import Config
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.models.export import export
from prism_tune.run.folder import RunDir, read_json
from prism_tune.selection.select import select
from prism_tune.training.train import train


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return draw_mixed_pool(tmp_path_factory.mktemp("mixed"))


@pytest.mark.parametrize("family", sorted(TINY_FAMILIES.keys() - {"llava"}))
def test_all_the_way(family, pool, tmp_path):
    model = save_whole_family(family, tmp_path / "model")
    options = tiny_config(tmp_path, model, pool, draw_questions(tmp_path / "questions"))
    options["model"]["template"] = "vicuna_v1"
    options["selection"] |= {"budget": 0.7, "layer": 2}
    config = Config.model_validate(options)
    run = RunDir(tmp_path / "runs" / "tiny")
    select(config, run)
    manifest = read_json(run.selection / "manifest.json")
    assert manifest["evidence"]["features"]["prompt"] == "prefix"
    assert 0 < manifest["num_selected"] < 12
    train(config, run)
    evaluate(config, run, force=False)
    results = json.loads(next((run.root / "evaluation").rglob("results.json")).read_text())
    assert results

    export(run.root, tmp_path / "merged")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "merged")
    token = processor.image_token
    image = Image.open(pool.parent / "images" / "3.png").convert("RGB")
    inputs = processor(text=[f"{token}\nwhat?"], images=[[image]], return_tensors="pt")
    with torch.no_grad():
        assert merged(**inputs).logits.isfinite().all()
