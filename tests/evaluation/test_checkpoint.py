"""What is evaluated is a training that finished, or the model as it is; else one says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.evaluation import checkpoint
from prism_tune.evaluation.checkpoint import Checkpoint, find_checkpoint, servable_model
from prism_tune.run.stage import Stage


def finish_training(setting, steps=1):
    Stage(setting.run.training).finish({"steps": steps}, config=setting.config(tuning="full"))


def test_a_finished_training_is_what_is_evaluated(setting):
    shutil.copytree(setting.model_dir, setting.run.checkpoint)
    finish_training(setting)
    found = find_checkpoint(setting.config(tuning="full"), setting.run)
    assert found.path == setting.run.checkpoint
    assert found.fingerprint == Stage(setting.run.training).require("train")["fingerprint"]
    finish_training(setting, steps=2)
    again = find_checkpoint(setting.config(tuning="full"), setting.run)
    assert again.fingerprint != found.fingerprint


def test_a_training_that_has_not_finished_is_named(setting):
    """`final` is there, `stage.json` is not: killed, copied by half, or removed by hand."""
    shutil.copytree(setting.model_dir, setting.run.checkpoint)
    with pytest.raises(UserError) as caught:
        find_checkpoint(setting.config(tuning="full"), setting.run)
    said = str(caught.value)
    assert said.startswith(f"{setting.run.checkpoint}: there, but its training has not finished")
    assert f"training.tuning=none model.path={setting.run.checkpoint}" in said


def test_a_finished_training_without_its_model_is_named(setting):
    finish_training(setting)
    with pytest.raises(UserError, match=r"final: not there, although .*stage\.json says"):
        find_checkpoint(setting.config(tuning="full"), setting.run)


def test_the_merged_model_is_of_the_dtype_asked_and_no_benchmarks_results_are_lost(
    setting, monkeypatch, tmp_path
):
    made = []

    def export(source, destination, options):
        made.append((options.dtype, options.trust_remote_code))
        destination.mkdir(parents=True)

    monkeypatch.setattr(checkpoint, "export", export)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").touch()
    results = setting.run.benchmark("merged-answers")  # one of the user's own
    results.mkdir(parents=True)
    tuned = Checkpoint(adapter, "f" * 64)
    tree = setting.config().model_dump(mode="json")
    tree["model"]["trust_remote_code"] = True
    paths = []
    for dtype in ("float32", "bfloat16", "bfloat16"):
        tree["evaluation"]["dtype"] = dtype
        paths.append(servable_model(Config.model_validate(tree), tuned, setting.run))
    assert made == [("float32", True), ("bfloat16", True)]
    assert [Path(path).is_dir() for path in paths] == [False, True, True]
    assert results.is_dir()


def test_without_training_the_command_is_named(setting):
    with pytest.raises(UserError, match="first run `prism-tune train CONFIG`"):
        find_checkpoint(setting.config(tuning="full"), setting.run)
