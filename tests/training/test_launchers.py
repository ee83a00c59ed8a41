"""Two real processes: under other launchers than torchrun, and with a run folder each."""

from __future__ import annotations

import os

import pytest
from support.ranks import Ranks
from support.training_runs import losses

from prism_tune.cli.app import main
from prism_tune.processes import rank
from prism_tune.run.folder import read_json
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
    assert read_json(checkpoint / MARKER)["num_processes"] == 2
    outputs = read_json(run.training / "stage.json")["outputs"]
    assert (outputs["num_processes"], outputs["global_batch"]) == (2, 2)


def train_on_a_disk_of_its_own():
    """`output_dir=runs` is another folder in each process, as on nodes that share nothing."""
    os.chdir(f"disk{rank()}")
    main()


def test_a_checkpoint_that_only_one_process_finds_is_not_gone_on_from(
    make_run, mixed_pool, tmp_path, monkeypatch
):
    _, run = make_run(file=mixed_pool, hf={"max_steps": 4, "save_steps": 2})
    arguments = ["train", str(run.root / "experiment.yaml"), "output_dir=runs"]
    for number in (0, 1):
        (tmp_path / f"disk{number}").mkdir()
    monkeypatch.chdir(tmp_path / "disk0")
    first = Ranks(arguments, tmp_path / "first.txt", num_processes=2, kill=("step", 3))
    first.be_killed()
    monkeypatch.chdir(tmp_path)
    again = Ranks(
        arguments, tmp_path / "again.txt", num_processes=2, program=train_on_a_disk_of_its_own
    )
    assert again.leave() == [1, 1]
    said = again.printed()
    assert 'rank 1: checkpoint to go on from is null for "checkpoint-2"' in said
    assert "output_dir lies on storage that all nodes share" in said
    assert (tmp_path / "disk0/runs/run/training/checkpoint-2").is_dir()
