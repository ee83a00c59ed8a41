"""Every checkpoint is verified before it counts."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from safetensors.torch import save_file
from support.training_runs import losses, weights

from prism_tune.errors import UserError
from prism_tune.training.checkpoints import CheckpointWriter
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow


def test_a_damaged_checkpoint_stops_the_run_and_is_not_gone_on_from(make_run, monkeypatch, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    config, run = make_run()
    complete = CheckpointWriter.complete

    def damage(self, directory, model):
        complete(self, directory, model)
        if directory.name == "checkpoint-4":
            tensors = weights(directory)
            name = next(iter(tensors))
            broken = {**tensors, name: torch.full_like(tensors[name], float("nan"))}
            save_file(broken, directory / "adapter_model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "complete", damage)
        with pytest.raises(UserError, match=r"checkpoint-4/.*: not finite"):
            train(config, run)
    assert not (run.training / "checkpoint-4" / "complete.json").exists()
    train(config, run)
    assert f"training: goes on from {run.training / 'checkpoint-2'}" in caplog.messages
    assert len(losses(run)) == 6


def test_a_checkpoint_of_the_warm_up_may_hold_what_there_was_before(make_run, caplog):
    hf = {"max_steps": 2, "save_steps": 1, "warmup_steps": 1, "save_total_limit": None}
    config, run = make_run(hf=hf)
    train(config, run)
    unchanged = [message for message in caplog.messages if "nothing differs" in message]
    first = run.training / "checkpoint-1"
    assert unchanged == [f"{first}: nothing differs from the initial weights yet"]


def kill(patch, *, at_step):
    """As a kill would, once the step is logged."""
    log = TuningTrainer.log

    def log_then_die(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == at_step:
            raise KeyboardInterrupt

    patch.setattr(TuningTrainer, "log", log_then_die)


STATES = ["optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"]


@pytest.fixture(scope="module")
def whole_and_killed(make_shared_run):
    """A run that was left alone, and one that was killed after step 5."""
    config, whole = make_shared_run("whole")
    train(config, whole)
    config, killed = make_shared_run("killed", hf={"save_total_limit": None})
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, at_step=5)
        with pytest.raises(KeyboardInterrupt):
            train(config, killed)
    return whole, killed


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_that_has_lost_its_state_is_not_gone_on_from(
    whole_and_killed, make_run, caplog, name
):
    caplog.set_level("INFO", logger="prism_tune")
    whole, killed = whole_and_killed
    config, run = make_run(hf={"save_total_limit": None})
    shutil.copytree(killed.root, run.root, dirs_exist_ok=True)
    newest = run.training / "checkpoint-4"
    (newest / name).unlink()
    copy, elsewhere = run.training / "checkpoint-4-copy", run.root / "elsewhere"
    shutil.copytree(newest, copy)
    newest.rename(elsewhere)
    newest.symlink_to(elsewhere)
    train(config, run)
    assert (copy / "complete.json").exists()
    assert (elsewhere / "complete.json").exists()
    assert f"{newest}: {name} is missing; training cannot go on from it" in caplog.messages
    assert f"training: goes on from {run.training / 'checkpoint-2'}" in caplog.messages
    assert losses(run) == losses(whole)
    expected, got = weights(whole.checkpoint), weights(run.checkpoint)
    assert all(torch.equal(got[tensor], expected[tensor]) for tensor in expected)


def test_a_checkpoint_of_the_model_alone_starts_the_training_anew(make_run, monkeypatch, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    config, run = make_run(hf={"save_only_model": True})
    with monkeypatch.context() as patch:
        kill(patch, at_step=5)
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
    train(config, run)
    assert "checkpoint-4: holds the model alone (training.hf.save_only_model)" in caplog.text
    assert "goes on from" not in caplog.text
    assert len(losses(run)) == 6


def test_a_training_that_goes_on_saves_and_logs_as_its_config_says_now(make_run, monkeypatch):
    """Trainer would keep the intervals of the checkpoint: of every second step, and every step.

    What it says of them is untrue then.
    """
    kept_all = {"save_total_limit": None}
    config, run = make_run(hf={"save_steps": 2, **kept_all})
    with monkeypatch.context() as patch:
        kill(patch, at_step=3)
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
    config, _ = make_run(hf={"save_steps": 1, "logging_steps": 4, **kept_all})
    said: list[str] = []
    library, handler = logging.getLogger("transformers.trainer_utils"), logging.Handler()
    monkeypatch.setattr(handler, "handle", lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(library, "handlers", [handler])
    train(config, run)
    saved = {path.name for path in run.training.glob("checkpoint-*")}
    assert saved == {"checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-6"}
    assert said == []
