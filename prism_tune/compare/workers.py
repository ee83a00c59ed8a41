"""Cells in processes of their own: a crash ends one cell, and libraries are loaded once per worker.

A worker takes a task, runs its verbs one after the other, and answers with None or the error. Where
it dies (out of memory, a defect in a library) the task has failed and another worker takes over.
What the verbs print goes to the cell's output.txt.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

from prism_tune.compare.cells import Cell, Verb
from prism_tune.compare.sharing import share_features
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir

RunVerb = Callable[[Verb, Config, RunDir], None]
"""Runs one verb; a function at the top of a module, so that a new process can import it."""


@dataclass(frozen=True)
class Task:
    """A cell to be run, and the selection to wait for, whose features it reads if that finished."""

    cell: Cell
    source: Cell | None = None


class Workers:
    """A number of processes that take tasks; use as a context manager.

    Args:
        run_verb: what a task does with each of its verbs.
        num_processes: at a time. On a CPU each gets its share of the threads; where
            CUDA_VISIBLE_DEVICES names several devices they are dealt out.
    """

    def __init__(self, run_verb: RunVerb, num_processes: int) -> None:
        self._run_verb = run_verb
        self._num_processes = num_processes
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self, tasks: Sequence[Task], on_done: Callable[[Task, str | None], None]) -> None:
        """Run all tasks; `on_done` gets each when it ended, with its error or None.

        In their order, but a task whose source is still at work lets others go first. The cell of a
        source has a task of its own, before those that wait for it.
        """
        waiting = list(tasks)
        pending = {task.cell for task in tasks}
        while len(self._workers) < min(self._num_processes, len(waiting)):
            self._workers.append(self._start(len(self._workers)))
        busy: dict[Connection, int] = {}
        while waiting or busy:
            working = set(busy.values())
            for number, worker in enumerate(self._workers):
                task = next((t for t in waiting if t.source not in pending), None)
                if task is not None and number not in working:
                    waiting.remove(task)
                    worker.begin(task)
                    busy[worker.connection] = number
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                number = busy.pop(connection)
                worker = self._workers[number]
                task, error, died = worker.end()
                if died:
                    self._workers[number] = self._start(number)
                on_done(task, error)
                pending.discard(task.cell)

    def _start(self, number: int) -> _Worker:
        return _Worker(self._run_verb, worker_environment(number, self._num_processes))


def worker_environment(number: int, num_processes: int) -> dict[str, str]:
    """What worker `number` of so many has to see differently; nothing for a single one."""
    if num_processes == 1:
        return {}
    own = {}
    if "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // num_processes))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(devices) > 1:
        own["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return own


class _Worker:
    """A process and the pipe to it; it ends when the pipe does, so never outlives its cell long."""

    def __init__(self, run_verb: RunVerb, environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, run_verb))
        self._task: Task | None = None
        with _changed_environment(environment):
            self._process.start()
        theirs.close()

    def begin(self, task: Task) -> None:
        self._task = task
        self.connection.send(task)

    def end(self) -> tuple[Task, str | None, bool]:
        """The task that ended, its error, and whether the process died of it."""
        assert self._task is not None
        task, self._task = self._task, None
        try:
            return task, self.connection.recv(), False
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            reason = _last_line(task.cell.output)
            return task, f"the process ended with exit code {code}: {reason}", True

    def stop(self) -> None:
        """End an idle process; kill one that is at work."""
        if self._task is not None:
            self._process.terminate()
        self.connection.close()
        self._process.join()


def _serve(connection: Connection, run_verb: RunVerb) -> None:
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, TextIOWrapper)
        stream.reconfigure(line_buffering=True)  # what a crash would take with it says why
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(task, run_verb))


def _attempt(task: Task, run_verb: RunVerb) -> str | None:
    """Run the verbs of a cell; the message of what the user can mend."""
    cell = task.cell
    cell.run.root.mkdir(parents=True, exist_ok=True)
    with _output_to(cell.output), _locked(cell.run.root):
        try:
            if task.source is not None and task.source.state() == "finished":
                share_features(task.source.run, cell.run)
            for verb in cell.verbs:
                run_verb(verb, cell.config, cell.run)
        except UserError as error:
            return str(error)
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait for a worker of a killed comparison that still finishes this cell."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send this process's stdout and stderr to a file, of its libraries too.

    Not put back after an error that ends the process: its traceback belongs in the file.
    """
    saved = [os.dup(1), os.dup(2)]
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    yield
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number, descriptor in enumerate(saved, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


@contextmanager
def _changed_environment(changes: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
