"""How verbs are started: in one process, by torchrun on this machine's GPUs, or on a SLURM job.

`prism-tune run` and `compare` start everything through a `Launcher`, so that what a verb is on one
core and on several nodes differs here and nowhere else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from prism_tune.compare.children import run_program
from prism_tune.compare.workers import Main, run_forked, share_out, start_server
from prism_tune.errors import ConfigError
from prism_tune.interrupts import patience_seconds

Kind = Literal["local", "torchrun", "slurm"]

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Of NVIDIA, of AMD, and of either within WSL."""

_TOGETHER = ("select", "train", "evaluate")
"""Verbs that use every process; the others are run by one."""


@dataclass(frozen=True)
class Launcher:
    """Starts verbs.

    Attributes:
        kind: local: one process | torchrun: so many on this machine | slurm: on all nodes of a job.
        num_processes: of torchrun.
        main: the command line.
        preload: modules that are loaded before a verb is forked.
    """

    kind: Kind
    num_processes: int
    main: Main
    preload: tuple[str, ...]

    def prepare(self, num_at_once: int) -> None:
        """Begin to load the libraries, for so many verbs at a time."""
        if self.kind != "slurm":
            shared = share_out(0, num_at_once)
            threads = {k: v for k, v in shared.items() if k == "OMP_NUM_THREADS"}
            start_server(self.preload, threads)

    def run(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> int:
        """Run `prism-tune` with these arguments, the verb first; returns its exit code."""
        command = self.command(arguments)
        if command is None:
            return run_forked(self.main, arguments, environment or {}, output)
        # torchrun kills what has not ended after 30 seconds, whatever a checkpoint takes.
        patience = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(ceil(patience_seconds()))}
        return run_program(command, output, patience)

    def check(self, main: Main, arguments: Sequence[str]) -> int:
        """Call this with these arguments, where the libraries are loaded; returns its exit code."""
        return run_forked(main, arguments, {}, None)

    def command(self, arguments: Sequence[str]) -> list[str] | None:
        """The program that runs a verb; None where it is forked."""
        together = arguments[0] in _TOGETHER
        verb = ["-m", "prism_tune", *arguments]
        torchrun = [sys.executable, "-m", "prism_tune.compare.elastic"]
        if self.kind == "torchrun" and together:
            return [*torchrun, "--standalone", f"--nproc_per_node={self.num_processes}", *verb]
        if self.kind != "slurm":
            return None
        if not together:
            return ["srun", "--nodes=1", "--ntasks=1", sys.executable, *verb]
        return ["srun", "--kill-on-bad-exit=1", *torchrun, *_rendezvous(), *verb]


def choose_launcher(
    kind: Kind | None, num_processes: int | None, main: Main, preload: tuple[str, ...]
) -> Launcher:
    """The launcher asked for; by itself torchrun where there are several GPUs, else local.

    Raises:
        ConfigError: slurm outside of a job.
    """
    processes = num_processes or (1 if kind in ("local", "slurm") else count_gpus())
    if kind == "slurm" and not os.environ.get("SLURM_JOB_NODELIST"):
        raise ConfigError(
            "LAUNCH=slurm works inside a job; submit one of the files in scripts/slurm"
        )
    return Launcher(kind or ("torchrun" if processes > 1 else "local"), processes, main, preload)


def count_gpus() -> int:
    """GPUs that torch sees here, asked in a process of its own; at least 1."""
    if not may_use_gpus():
        return 1
    code = "import torch; print(max(1, torch.cuda.device_count()))"
    return int(subprocess.check_output([sys.executable, "-c", code]))


def may_use_gpus() -> bool:
    """Whether a driver is there and not hidden, looked up without torch, which takes seconds.

    AMD's GPUs have no nvidia-smi, nor have many containers.
    """
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    has_driver = shutil.which("nvidia-smi") or any(map(os.path.exists, DRIVERS))
    return bool(has_driver) and not is_hidden


def _rendezvous() -> list[str]:
    """Where the processes of a job's nodes meet; two jobs that share a node do not."""
    nodes = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    head = subprocess.check_output(nodes, text=True).split()[0]
    job = os.environ["SLURM_JOB_ID"]
    return [
        f"--nnodes={os.environ['SLURM_NNODES']}",
        f"--nproc_per_node={os.environ.get('SLURM_GPUS_ON_NODE', '1')}",
        f"--rdzv_id={job}",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint={head}:{20000 + int(job) % 20000}",
    ]
