"""Two real processes: the other ZeRO stages, one that fails, one that is late."""

from __future__ import annotations

import pytest
from support.ranks import Ranks, hang_in_a_step, meet_late
from support.training_runs import losses

from prism_tune.training.train import train

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
SHORT = {"max_steps": 3, "save_strategy": "no"}


@pytest.fixture(scope="module")
def plain(make_shared_run, mixed_pool):
    """A run of one process, and the options of what has to equal it."""
    options = {"file": mixed_pool, "batching": "random", "lora": LORA}
    config, run = make_shared_run("plain", **options, hf=SHORT)
    train(config, run)
    return run, options


@pytest.mark.parametrize("stage", [0, 1])
def test_two_processes_under_zero_0_and_1_equal_one(plain, make_run, stage):
    plain, options = plain
    hf = {**SHORT, "per_device_train_batch_size": 1}
    deepspeed = f"configs/deepspeed/zero{stage}.json"
    _, run = make_run("two", **options, deepspeed=deepspeed, hf=hf)
    experiment = str(run.root / "experiment.yaml")
    Ranks(["train", experiment], run.root / "output.txt", num_processes=2).succeed()
    assert losses(run) == pytest.approx(losses(plain), rel=1e-4)


def test_a_checkpoint_that_one_process_refuses_ends_the_others(make_run, mixed_pool):
    hf = {"max_steps": 1, "warmup_steps": 0, "learning_rate": 1e-60, "save_strategy": "no"}
    _, run = make_run(file=mixed_pool, hf=hf)
    experiment = str(run.root / "experiment.yaml")
    ranks = Ranks(["train", experiment], run.root / "output.txt", num_processes=2)
    assert 1 in ranks.wait()
    printed = " ".join(ranks.printed().split())
    assert "no trained parameter differs from its initial value" in printed
    assert "Traceback" not in printed
    assert not run.checkpoint.exists()


def test_waiting_for_a_late_process_outlasts_the_timeout_of_the_group(tmp_path):
    Ranks([], tmp_path / "output.txt", num_processes=2, program=meet_late).succeed()


def test_a_hang_within_a_step_ends_after_ddp_timeout(tmp_path):
    ranks = Ranks([], tmp_path / "output.txt", num_processes=2, program=hang_in_a_step)
    assert 1 in ranks.wait()
    assert "Timed out" in ranks.printed()
