"""Launched processes without their imports: forked from a server that has loaded them already.

What torchrun does: rank variables for each process, and all of them killed once one fails. The
command line is the public one. A process can be made to kill itself, by SIGKILL, at a given point.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from prism_tune.cli.app import main
from prism_tune.processes import barrier, rank
from prism_tune.run.worker_processes import place_sockets

HANGS_AFTER_SECONDS = 300
PRELOADED = ["deepspeed", "prism_tune.cli.app", "prism_tune.training.train"]
ASKED = {name: signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP")}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_NAMED_BY = {
    "srun": {
        "RANK": "SLURM_PROCID",
        "LOCAL_RANK": "SLURM_LOCALID",
        "LOCAL_WORLD_SIZE": "SLURM_STEP_TASKS_PER_NODE",
    },
    "deepspeed": {"LOCAL_WORLD_SIZE": "LOCAL_SIZE"},
}


@lru_cache(maxsize=1)
def _server() -> Any:
    """Started with one thread, so that what it forks may start its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    place_sockets()
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


class Ranks:
    """A command line running in one process, or in several that know each other.

    Args:
        arguments: of `prism-tune`.
        num_processes: how many.
        output: file for what they print.
        kill: point and step at which the main process kills itself, or the last one asks itself to
            end (see `kill_at`).
        program: what reads these arguments.
        launcher: whose variables they have.
    """

    def __init__(
        self,
        arguments: list[str],
        output: Path,
        *,
        num_processes: int = 1,
        kill: tuple[str, int] | None = None,
        program: Callable[[], None] = main,
        launcher: Literal["torchrun", "srun", "deepspeed"] = "torchrun",
    ) -> None:
        self.output = output
        output.write_bytes(b"")
        environments = [{}] if num_processes == 1 else rank_variables(num_processes)
        names = _NAMED_BY.get(launcher, {})
        environments = [{names.get(k, k): v for k, v in given.items()} for given in environments]
        self._processes = [
            _server().Process(
                target=_run, args=(arguments, environment, str(output), kill, program)
            )
            for environment in environments
        ]
        for process in self._processes:
            process.start()

    def wait(self) -> list[int]:
        """The exit codes, once all have ended; after a failure the others are killed."""
        running = list(self._processes)
        while running:
            if not wait([process.sentinel for process in running], HANGS_AFTER_SECONDS):
                self._kill(running)
                raise AssertionError(f"hangs; it printed:\n{self.printed()[-3000:]}")
            for process in running:
                process.join(0)
            if any(process.exitcode for process in self._processes):
                self._kill(running)
            running = [process for process in running if process.exitcode is None]
        return [process.exitcode for process in self._processes]

    def printed(self) -> str:
        """What all of them have printed."""
        return self.output.read_text(errors="replace")

    def succeed(self) -> None:
        """Wait, and fail the test with what was printed unless every process exits with 0."""
        codes = self.wait()
        assert set(codes) == {0}, f"exit codes {codes}; it printed:\n{self.printed()[-3000:]}"

    def be_killed(self) -> None:
        """Wait for the main process to have killed itself."""
        codes = self.wait()
        assert codes[0] == -signal.SIGKILL, f"{codes}; it printed:\n{self.printed()[-3000:]}"

    def kill(self, number: int) -> None:
        """SIGKILL for one of them, while all are running."""
        codes = [process.exitcode for process in self._processes]
        assert set(codes) == {None}, f"{codes}; it printed:\n{self.printed()[-3000:]}"
        self._processes[number].kill()

    def leave(self) -> list[int]:
        """The exit codes of processes that were asked to end, each left to do so by itself."""
        for process in self._processes:
            process.join(HANGS_AFTER_SECONDS)
        codes = [process.exitcode for process in self._processes]
        self._kill(self._processes)
        assert None not in codes, f"{codes}: hangs; it printed:\n{self.printed()[-3000:]}"
        return codes

    @staticmethod
    def _kill(processes: list[Any]) -> None:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def rank_variables(num_processes: int) -> list[dict[str, str]]:
    """What a launcher sets for each process, on one machine and a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        {
            **shared,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
        }
        for rank in range(num_processes)
    ]


def _run(
    arguments: list[str],
    environment: dict[str, str],
    output: str,
    kill: tuple[str, int] | None,
    program: Callable[[], None],
) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    # As at a terminal: tests in a shell's background inherit an interrupt that is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    torch.set_num_threads(1)
    victim = int(environment.get("WORLD_SIZE", "1")) - 1 if kill and kill[0] in ASKED else 0
    if kill is not None and int(environment.get("RANK", "0")) == victim:
        kill_at(*kill)
    sys.argv = ["prism-tune", *arguments]
    program()


def meet_late() -> None:
    """Join a group that gives up after a second, and let the others wait for three."""
    from torch import distributed

    distributed.init_process_group("gloo", timeout=timedelta(seconds=1))
    if rank() == 1:
        time.sleep(3)
    barrier()
    distributed.destroy_process_group()


def miss_the_meeting() -> None:
    """The last rank ends before the others meet it, who wait for a second."""
    from prism_tune.cli.options import end_with_errors
    from prism_tune.processes import world_size
    from prism_tune.run import ranks

    ranks.MEETING_SECONDS = 1.0
    if rank() + 1 == world_size():
        return
    end_with_errors(ranks.meet)


def hang_in_a_step() -> None:
    """Open the group of a training that gives up after a second, and let one process be late."""
    import torch

    from prism_tune.config.sections import TrainingConfig
    from prism_tune.training.launch import training_group

    training = TrainingConfig(deepspeed=None, hf={"ddp_timeout": 1})
    with training_group(torch.device("cpu"), training):
        if rank() == 1:
            time.sleep(60)
        torch.distributed.all_reduce(torch.ones(1))


def hang_when_asked(grace_seconds: tuple[float, float] = (1, 1)) -> None:
    """Wait for a message that never comes, be asked to end meanwhile, and have so long for it."""
    import torch
    from torch import distributed

    from prism_tune.cli.options import end_with_errors
    from prism_tune.interrupts import postponed, raise_interrupts

    def receive() -> None:
        with postponed(grace_seconds[rank()]):
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            distributed.recv(torch.ones(1), src=1 - rank())

    raise_interrupts()
    distributed.init_process_group("gloo")
    end_with_errors(receive)


def be_left_when_asked() -> None:
    """The same, where the other rank has less time for it and leaves first."""
    hang_when_asked((200, 1))


def kill_at(point: str, step: int) -> None:
    """Arrange for this process to get SIGKILL.

    Args:
        point: `step`, once it is logged; `save`, when all of its checkpoint is written but the
            marker; `final`, when the tuned model is written under a temporary name; `SIGTERM` and
            `SIGINT`, the signal that it gets once the step is logged.
        step: of the training.
    """
    from prism_tune.training.checkpoints import CheckpointWriter
    from prism_tune.training.trainer import TuningTrainer

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    log = TuningTrainer.log

    def log_then_die(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == step and "loss" in logs:
            os.kill(os.getpid(), ASKED.get(point, signal.SIGKILL))

    finish = CheckpointWriter.finish

    def die_unmarked(self: Any, directory: Path, model: Any, **options: Any) -> None:
        if directory.name == f"checkpoint-{step}":
            die()
        finish(self, directory, model, **options)

    if point == "step" or point in ASKED:
        TuningTrainer.log = log_then_die  # type: ignore[method-assign]
    elif point == "save":
        CheckpointWriter.finish = die_unmarked  # type: ignore[method-assign]
    else:
        CheckpointWriter.verify_final = die  # type: ignore[assignment]
