"""Weights & Biases, offline: what its run holds, and that nothing asks the network."""

from __future__ import annotations

import socket

import pytest
import wandb
from support.training_runs import losses

from prism_tune.errors import UserError
from prism_tune.run.folder import read_json
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch):
    """Stands where wandb would call; offline as it is by default."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening
    wandb.teardown()


@pytest.fixture
def summaries(monkeypatch):
    """What each run held when it was ended."""
    found, finish = [], wandb.finish

    def remember(*arguments):
        found.append(wandb.run.summary._as_dict())
        finish(*arguments)

    monkeypatch.setattr(wandb, "finish", remember)
    return found


@pytest.fixture
def opened(monkeypatch):
    """The runs that were opened."""
    runs, init = [], wandb.init

    def remember(*arguments, **options):
        runs.append(init(*arguments, **options))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", remember)
    return runs


def watch(config):
    tracking = config.tracking.model_copy(update={"wandb": True, "project": "mine"})
    return config.model_copy(update={"tracking": tracking})


def test_an_offline_run_holds_experiment_data_and_the_loss_of_each_source(
    make_run, server, opened, summaries
):
    hf = {"per_device_train_batch_size": 26, "max_steps": 2, "save_strategy": "no"}
    config, run = make_run("watched", batching="random", hf=hf)
    config = watch(config)
    train(config, run)
    assert wandb.run is None  # ended with its training
    (ended,) = opened
    (summary,) = summaries
    settings = dict(ended.config)
    wandb.teardown()  # it writes on behind the back of `finish`, as at the end of a process

    assert settings["experiment"] == config.model_dump(mode="json")
    data = read_json(run.training / "stage.json")["inputs"]["records"]
    assert settings["data_fingerprint"] == data
    assert settings["max_steps"] == 2  # of TrainingArguments
    assert summary["train/loss"] == pytest.approx(losses(run)[-1], rel=1e-6)
    of_sources = {key for key in summary if key.startswith("train/loss/")}
    assert of_sources == {"train/loss/shape", "train/loss/colour", "train/loss/text"}
    assert summary["train/tokens_per_second"] > 0
    (written,) = (run.training / "wandb").glob("offline-run-*/*.wandb")
    assert data.encode() in written.read_bytes()
    assert b"train/loss/colour" in written.read_bytes()
    with pytest.raises(BlockingIOError):
        server.accept()


def test_two_trainings_of_one_process_are_two_runs(make_run, server, opened):
    """`compare_random` trains twice; the second was once written into the run of the first."""
    hf = {"per_device_train_batch_size": 26, "max_steps": 2, "save_strategy": "no"}
    for name in ("one", "two"):
        config, run = make_run(name, batching="random", hf=hf)
        train(watch(config), run)
    assert [ended.name for ended in opened] == ["one", "two"]


def test_the_run_of_a_training_that_fails_ends_as_failed(make_run, server, opened, monkeypatch):
    config, run = make_run("fails", batching="random", hf={"max_steps": 2, "save_strategy": "no"})
    codes, finish = [], wandb.finish
    monkeypatch.setattr(wandb, "finish", lambda code: (codes.append(code), finish(code)))
    monkeypatch.setattr(TuningTrainer, "save_verified", fail)
    with pytest.raises(UserError, match="nothing learnt"):
        train(watch(config), run)
    assert (codes, wandb.run, len(opened)) == ([1], None, 1)


def fail(*_):
    raise UserError("nothing learnt")
