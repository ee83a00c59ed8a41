"""How verbs are started: one process, several GPUs, a SLURM job on several nodes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prism_tune.compare import launch
from prism_tune.compare.children import run_program
from prism_tune.compare.launch import Launcher, choose_launcher
from prism_tune.errors import ConfigError
from prism_tune.interrupts import Interrupted, patience

pytestmark = pytest.mark.slow

TRAIN = ["train", "my.yaml", "seed=1"]
TABLES = ["tables", "main"]


def main(arguments):
    sys.exit(0)


def command(kind, arguments, num_processes=2):
    return Launcher(kind, num_processes, main, ()).command(arguments)


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """What SLURM sets in a job on two nodes, and a stand-in for its `scontrol`."""
    place(tmp_path / "scontrol", "echo gpu07\necho gpu08")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in {
        "SLURM_JOB_NODELIST": "gpu[07-08]",
        "SLURM_JOB_ID": "41",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
    }.items():
        monkeypatch.setenv(name, value)


def test_one_process_is_forked():
    assert command("local", TRAIN) is None
    assert command("torchrun", TABLES) is None


def test_several_gpus_train_together():
    assert command("torchrun", TRAIN, 4) == [
        *(sys.executable, "-m", "prism_tune.compare.elastic"),
        *("--standalone", "--nproc_per_node=4", "-m", "prism_tune", *TRAIN),
    ]


@pytest.mark.usefixtures("slurm")
def test_a_job_launches_on_every_node_and_tabulates_on_one():
    assert command("slurm", TRAIN) == [
        *("srun", "--kill-on-bad-exit=1", sys.executable, "-m", "prism_tune.compare.elastic"),
        *("--nnodes=2", "--nproc_per_node=8", "--rdzv_id=41", "--rdzv_backend=c10d"),
        *("--rdzv_endpoint=gpu07:20041", "-m", "prism_tune", *TRAIN),
    ]
    assert command("slurm", TABLES) == [
        *("srun", "--nodes=1", "--ntasks=1", sys.executable, "-m", "prism_tune", *TABLES)
    ]


def test_by_itself_every_gpu_is_used(monkeypatch):
    for num_gpus, kind in ((1, "local"), (4, "torchrun")):
        monkeypatch.setattr(launch, "count_gpus", lambda n=num_gpus: n)
        chosen = choose_launcher(None, None, main, ())
        assert (chosen.kind, chosen.num_processes) == (kind, num_gpus)
    assert choose_launcher("local", None, main, ()).kind == "local"
    assert choose_launcher(None, 2, main, ()).kind == "torchrun"
    assert choose_launcher("torchrun", 3, main, ()).num_processes == 3


def test_slurm_outside_of_a_job_is_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    with pytest.raises(ConfigError, match="works inside a job"):
        choose_launcher("slurm", None, main, ())


def test_output_of_a_program_goes_to_the_file_too(monkeypatch, tmp_path):
    monkeypatch.setattr(
        Launcher,
        "command",
        lambda self, arguments: ["sh", "-c", "echo said; echo wrong >&2; exit 3"],
    )
    output = tmp_path / "cell/output.txt"
    assert Launcher("torchrun", 2, main, ()).run(TRAIN, output=output) == 3
    assert output.read_text() == "said\nwrong\n"


def test_torchrun_waits_for_the_checkpoint_of_a_training_that_is_asked_to_end(
    monkeypatch, tmp_path
):
    """By itself it kills its processes after 30 seconds."""
    output = tmp_path / "output.txt"
    say = "from torch.distributed.launcher.api import LaunchConfig as C; print(C(1, 1, 1).%s)"
    command = [sys.executable, "-c", say % "shutdown_timeout"]
    monkeypatch.setattr(Launcher, "command", lambda self, arguments: command)
    with patience(165):
        assert Launcher("torchrun", 2, main, ()).run(TRAIN, output=output) == 0
    assert output.read_text() == "165\n"


@pytest.mark.parametrize(("scancel", "left"), [("", "step"), ("exit 1\n", "srun")])
def test_the_step_that_srun_has_started_is_asked_to_end(
    scancel, left, slurm, monkeypatch, tmp_path
):
    """Of a SIGTERM that it gets itself srun makes a SIGKILL of what it has started."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path / "scancel", f'{scancel}[ "$*" = "--signal=TERM 41" ] && echo step >left')
    place(
        tmp_path / "srun",
        "trap 'echo srun >left; exit' TERM; echo >works; until [ -e left ]; do sleep 0.05; done",
    )
    asked = signal.signal(signal.SIGALRM, ask_to_end)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(Interrupted):
            run_program(["srun"], None, {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, asked)
    assert Path("left").read_text() == f"{left}\n"


def ask_to_end(signum, frame):
    """Once it works: before, it would have no trap yet."""
    if Path("works").exists():
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Interrupted(signal.SIGTERM)


def place(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_number_of_gpus_is_asked_elsewhere(monkeypatch):
    """In this process torch would start CUDA, which does not survive a fork."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # the tests' own
    monkeypatch.setattr(launch, "DRIVERS", ())
    monkeypatch.setattr(launch.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "check_output", lambda command: b"8\n")
    assert launch.count_gpus() == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.count_gpus() == 1


@pytest.mark.parametrize("has_driver", [True, False])
def test_gpus_are_found_without_nvidia_smi(monkeypatch, tmp_path, has_driver):
    """As of AMD, or in a container."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    monkeypatch.setattr(launch, "DRIVERS", (str(tmp_path / "kfd"),))
    monkeypatch.setattr(subprocess, "check_output", lambda command: b"8\n")
    if has_driver:
        (tmp_path / "kfd").touch()
    assert launch.count_gpus() == (8 if has_driver else 1)
