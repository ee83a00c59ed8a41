"""Two real processes under other launchers than torchrun: one training, not one each."""

from __future__ import annotations

import json

import pytest
from support.ranks import Ranks
from support.training_runs import losses

from prism_tune.training.checkpoints import MARKER, complete_checkpoints
from prism_tune.training.train import train

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("deepspeed", [None, "configs/deepspeed/zero2.json"])
def test_processes_of_srun_train_together(make_run, mixed_pool, deepspeed):
    options = {"file": mixed_pool, "batching": "random", "lora": LORA}
    hf = {"max_steps": 3, "save_steps": 3}
    config, plain = make_run("plain", **options, hf=hf)
    train(config, plain)
    hf["per_device_train_batch_size"] = 1
    _, run = make_run("two", **options, deepspeed=deepspeed, hf=hf)
    arguments = ["train", str(run.root / "experiment.yaml")]
    Ranks(arguments, run.root / "output.txt", num_processes=2, launcher="srun").succeed()
    assert losses(run) == pytest.approx(losses(plain), rel=1e-4)
    (checkpoint,) = complete_checkpoints(run.training)
    assert json.loads((checkpoint / MARKER).read_text())["num_processes"] == 2
