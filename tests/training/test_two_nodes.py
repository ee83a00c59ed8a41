"""Training over a network: two namespaces of this machine joined by one cable.

By DeepSpeed's launcher; torchrun's is in `selection/test_two_nodes.py`.
"""

from __future__ import annotations

import pytest
import torch
from support.training_runs import losses, weights
from support.two_nodes import run_on_two_nodes

from prism_tune.run.timings import read_timings
from prism_tune.training.train import train

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}


def test_two_nodes_train_what_one_process_trains(make_run, mixed_pool):
    options = {"file": mixed_pool, "batching": "random", "lora": LORA}
    config, alone = make_run("alone", **options, hf={"max_steps": 2})
    train(config, alone)

    hf = {"max_steps": 2, "per_device_train_batch_size": 1}
    deepspeed = "configs/deepspeed/zero2.json"
    _, together = make_run("together", **options, deepspeed=deepspeed, hf=hf)
    run_on_two_nodes("train", str(together.root / "experiment.yaml"), launcher="deepspeed")
    assert [attempt["num_devices"] for attempt in read_timings(together)] == [2]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)
    expected, got = weights(alone.checkpoint), weights(together.checkpoint)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4)
