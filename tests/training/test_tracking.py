"""Weights & Biases, offline: what its run holds, and that nothing asks the network."""

from __future__ import annotations

import socket

import pytest
import wandb
from support.training_runs import losses

from prism_tune.run.folder import read_json
from prism_tune.training.train import train

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


def test_an_offline_run_holds_experiment_data_and_the_loss_of_each_source(make_run, server):
    hf = {"per_device_train_batch_size": 26, "max_steps": 2, "save_strategy": "no"}
    config, run = make_run("watched", batching="random", hf=hf)
    tracking = config.tracking.model_copy(update={"wandb": True, "project": "mine"})
    config = config.model_copy(update={"tracking": tracking})
    train(config, run)
    settings, summary = dict(wandb.run.config), wandb.run.summary._as_dict()
    wandb.finish()

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
