"""An image that the model's processor refuses, through every stage: named, and skipped if allowed.

Qwen's image processor takes no image longer than 200 times its height.
"""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image
from support.tiny import draw_image
from support.tiny_processors import build_family

from prism_tune.audit.audit import audit
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.evaluation.evaluate import evaluate
from prism_tune.run.folder import RunDir, read_json
from prism_tune.selection.select import select
from prism_tune.training.train import train

NAMES = ("0.png", "1.png", "2.png", "strip.png")
WHY = "210 x 1 pixels, which the model's processor refuses: absolute aspect ratio"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A tiny Qwen2.5-VL, four images of which one is a strip; `config(policy)` for a run on it."""
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    model, processor = build_family("qwen2_5_vl")
    model.save_pretrained(tmp_path / "model")
    # Of a processor without video nothing else can be saved.
    monkeypatch.setattr(processor, "save_pretrained", processor.tokenizer.save_pretrained)
    for name, module in list(sys.modules.items()):  # where it loads, torchvision is needed
        if name.startswith("prism_tune.") and hasattr(module, "load_processor"):
            monkeypatch.setattr(module, "load_processor", lambda config: processor)
    (tmp_path / "images").mkdir()
    for number, name in enumerate(NAMES):
        draw_image(tmp_path / "images" / name, number)
    Image.new("RGB", (210, 1)).save(tmp_path / "images" / NAMES[-1])
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    records = [{"id": name, "image": name, "conversations": turns} for name in NAMES]
    (tmp_path / "pool.json").write_text(json.dumps(records))
    rows = [
        {"question_id": name, "image": name, "text": "is it red?", "answer": "yes", "category": "c"}
        for name in NAMES
    ]
    (tmp_path / "asked.json").write_text(json.dumps(rows))

    def config(verdict, reason="image_refused"):
        data = {"annotations": str(tmp_path / "asked.json"), "image_dir": str(tmp_path / "images")}
        return Config.model_validate(
            {
                "name": "run",
                "output_dir": str(tmp_path / "runs"),
                "model": {"path": str(tmp_path / "model"), "template": "chatml"},
                "data": {"records": str(tmp_path / "pool.json"), "num_workers": 0,
                         "image_dir": str(tmp_path / "images"),
                         "policy": {reason: verdict}},
                "selection": {"budget": 2, "dtype": "float32"},
                "training": {"deepspeed": None, "records": "pool",
                             "hf": {"max_steps": 2, "save_strategy": "no", "use_cpu": True,
                                    "learning_rate": 1e-2, "per_device_train_batch_size": 3}},
                "evaluation": {"dtype": "float32", "benchmarks": ["quickstart"],
                               "data": {"quickstart": data}},
            }
        )  # fmt: skip

    return config, RunDir(tmp_path / "runs" / "run")


def stages(config, run):
    untuned = config.model_copy(
        update={"training": config.training.model_copy(update={"tuning": "none"})}
    )
    return {
        "select": lambda: select(config, run),
        "train": lambda: train(config, run),
        "evaluate": lambda: evaluate(untuned, run, force=False),
    }


def test_the_audit_finds_it(place):
    make_config, run = place
    assert audit(make_config("fail"), run) is False
    found = read_json(run.audit / "audit.json")
    assert found["reasons"]["image_refused"]["records"] == 1
    assert WHY in (run.audit / "image_refused.jsonl").read_text()
    assert (found["num_usable"], found["lengths"]["num_unusable"]) == (3, 0)
    assert audit(make_config("skip"), run) is True
    assert audit(make_config("skip", "image_aspect_ratio"), run) is True  # left out already
    assert read_json(run.audit / "audit.json")["num_usable"] == 3


@pytest.mark.parametrize("stage", ["select", "train", "evaluate"])
def test_every_stage_names_it_before_anything_is_written(place, stage):
    make_config, run = place
    with pytest.raises(UserError, match=r"image_refused: .*strip.*210 x 1 pixels") as raised:
        stages(make_config("fail"), run)[stage]()
    assert "data.policy.image_refused=skip" in str(raised.value)
    assert not (run.root / "training").exists()


def test_every_stage_goes_on_without_it(place):
    make_config, run = place
    for stage in stages(make_config("skip"), run).values():
        stage()
    assert read_json(run.selection / "manifest.json")["num_selected"] == 2
    (skipped,) = read_json(run.training / "skipped.json")
    assert (skipped["id"], skipped["reason"]) == ("strip.png", "image_refused")
    result = read_json(run.benchmark("quickstart") / "results.json")
    assert any("image_refused" in note for note in result["notes"])
