"""The card beside an exported model: provenance, results and cost, and no path of this machine."""

from __future__ import annotations

import yaml
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.sections import Config
from prism_tune.report.model_card import write_model_card
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage

TREE = {
    "name": "mine",
    "model": {"path": "/home/me/models/base-7b", "template": "chatml"},
    "data": {"records": "/home/me/pool.json"},
    "selection": {"budget": 0.5},
}


def make_run(root):
    config, run = Config.model_validate(TREE), RunDir(root / "mine")
    manifest = {"num_pool": 2000, "num_selected": 1000, "subset_sha256": "ab", "per_source": {}}
    write_json(run.selection / "manifest.json", manifest)
    Stage(run.selection).finish({}, config=config)
    Stage(run.training).finish({}, config=config)
    result = {"benchmark": "pope", "metrics": {"f1": 85.25}, "num_examples": 9, "num_missing": 0}
    write_json(run.benchmark("pope") / "results.json", {**result, "profile": "llava15"})
    Stage(run.benchmark("pope")).finish({}, config=config)
    entry = {"stage": "training", "device": "cpu", "device_seconds": 1234.0, "counts": {}}
    write_json(run.timings, [{**entry, "fingerprint": "f", "finished": True}])
    return run


def test_a_card_says_what_the_model_is(tmp_path):
    card = write_model_card(make_run(tmp_path))
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["pipeline_tag"] == "image-text-to-text"
    assert "base-7b, tuned (lora, seed 0) on 1,000 of 2,000 records of pool.json" in text
    assert "| pope | f1 | 85.25 | 9 |" in text
    assert "| training | cpu | 1,234 |" in text
    assert "/home/me" not in card


def test_a_card_leaves_out_what_was_measured_of_other_weights(tmp_path):
    """Selected and tuned again, each alone: pope's score is not of the weights that are there."""
    run, config = make_run(tmp_path), Config.model_validate(TREE)
    Stage(run.benchmark("pope")).finish({"checkpoint": "of another training"}, config=config)
    Stage(run.selection).finish({}, config=config, subset_sha256="new")
    Stage(run.training).finish({"records": "old"}, config=config)
    card = write_model_card(run)
    assert "85.25" not in card
    assert "None: these weights were not evaluated." in card
    assert "Left out, for it was of other weights of this run: pope." in card
    assert "**Not as recorded**: training: on another subset than selection/ holds." in card
    assert "Left out" not in write_model_card(make_run(tmp_path / "sound"))


def test_pushing_without_a_token_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    given = [
        "export",
        str(tmp_path / "mine"),
        "--to",
        str(tmp_path / "out"),
        "--push-to-hub",
        "a/b",
    ]
    result = CliRunner().invoke(app, given)
    assert "a/b: no token for the hub" in str(result.exception)
    assert not (tmp_path / "out").exists()
