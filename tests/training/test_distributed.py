"""Real processes: two under ZeRO-2 with a kill -9, one under ZeRO-3, against plain training."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from prism_tune.training.progress import read_log
from prism_tune.training.train import train

KILLED_AT_STEP_5 = """
import os, signal, sys
from prism_tune.training.trainer import TuningTrainer
log = TuningTrainer.log
def log_then_die(self, logs, start_time=None):
    log(self, logs, start_time)
    if self.state.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
TuningTrainer.log = log_then_die
from prism_tune.cli import main
sys.argv = ["prism-tune", "train", sys.argv[1]]
main()
"""
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}


def launch(arguments, *, num_processes):
    command = [sys.executable]
    if num_processes > 1:
        command += ["-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
        command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )


def losses(run):
    return [line["loss"] for line in read_log(run.training / "log.jsonl")]


def test_two_zero2_processes_killed_and_resumed_equal_one(
    make_run, deepspeed_file, mixed_pool, tmp_path
):
    """Of the two, one always has images and the other only text."""
    options = {"file": mixed_pool, "batching": "random", "lora": LORA}
    config, plain = make_run("plain", **options)
    train(config, plain)

    _, run = make_run(
        "two", **options, deepspeed=deepspeed_file(2), hf={"per_device_train_batch_size": 1}
    )
    script = tmp_path / "killed.py"
    script.write_text(KILLED_AT_STEP_5)
    experiment = str(run.root / "experiment.yaml")
    killed = launch([str(script), experiment], num_processes=2)
    assert killed.returncode != 0
    assert len(losses(run)) == 5, killed.stderr[-2000:]
    assert not (run.training / "stage.json").exists()

    resumed = launch(["-m", "prism_tune", "train", experiment], num_processes=2)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "goes on from" in run.log.read_text()
    assert losses(run) == pytest.approx(losses(plain), rel=1e-4)


def test_a_zero3_process_saves_what_plain_training_saves(make_run, deepspeed_file):
    options = {"tuning": "full", "hf": {"max_steps": 3, "save_strategy": "no"}}
    config, plain = make_run("plain", **options)
    train(config, plain)
    _, run = make_run("zero3", **options, deepspeed=deepspeed_file(3))
    done = launch(["-m", "prism_tune", "train", str(run.root / "experiment.yaml")], num_processes=1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(run) == pytest.approx(losses(plain), rel=1e-4)
    expected = load_file(plain.checkpoint / "model.safetensors")
    got = load_file(run.checkpoint / "model.safetensors")
    assert got.keys() == expected.keys()
    assert all(got[name].shape == expected[name].shape for name in expected)
