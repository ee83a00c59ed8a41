"""The processes that verbs run in: none outlives the command that has started it.

Whoever waits for one and is asked to end asks it to end as well, and waits on: a training saves
what it has done. Where this process is killed instead, the kernel tells the others.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from prism_tune.interrupts import SIGNALS, Interrupted, follow_parent

Ask = Callable[[int], None]
"""Asks a process, by its number, to end."""


def terminate(pid: int) -> None:
    """Ask a process itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


_running: dict[int, Ask] = {}
_lock = Lock()


@contextmanager
def accompanied(pid: int, is_over: Callable[[], bool], ask: Ask = terminate) -> Iterator[None]:
    """Wait for a process within it.

    Args:
        pid: the process.
        is_over: whether it has been waited for, so that its number may be another's by now.
        ask: how it is asked to end.

    Raises:
        Interrupted: asked to end meanwhile; the process has ended as well by then.
    """
    with _lock:
        _running[pid] = ask
    try:
        yield
    except Interrupted:
        if not is_over():
            _end(pid, ask)
        raise
    finally:
        with _lock:
            _running.pop(pid, None)


def ask_all_to_end() -> None:
    """For the main thread, which alone is interrupted, where others wait for processes."""
    with _lock:
        for pid, ask in _running.items():
            ask(pid)


def run_program(command: Sequence[str], output: Path | None, environment: Mapping[str, str]) -> int:
    """Run a program; returns its exit code.

    Args:
        command: the program and its arguments.
        output: file to append what it prints to; None: this process's own.
        environment: changes to this process's own.
    """
    file = None
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        file = output.open("a")
    try:
        process = subprocess.Popen(
            command, preexec_fn=_start, stdout=file, stderr=file, env={**os.environ, **environment}
        )
        ask = _ask_steps if command[0] == "srun" else terminate
        with accompanied(process.pid, lambda: process.returncode is not None, ask):
            return int(process.wait())
    finally:
        if file is not None:
            file.close()


def _start() -> None:
    """In the new process, before it becomes the program."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    follow_parent()


def _ask_steps(pid: int) -> None:
    """The steps of this job; srun ends with them.

    Of a SIGTERM that it gets itself srun makes a SIGKILL of what it has started.
    """
    command = ["scancel", "--signal=TERM", os.environ.get("SLURM_JOB_ID", "")]
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError):
        terminate(pid)


def _end(pid: int, ask: Ask) -> None:
    """Ask it to end, and wait: its number alone is known where a server has forked it."""
    if not hasattr(os, "pidfd_open"):  # macOS: it is not waited for
        ask(pid)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # gone, or a kernel without
        return
    try:
        ask(pid)
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
