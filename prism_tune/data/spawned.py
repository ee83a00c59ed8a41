"""The same work on many items, shared out to a few processes.

They are programs of their own: not forked, as this process may run threads, and not spawned by
`multiprocessing`, which runs the caller's script again in each of them, to its end where it has no
`if __name__ == "__main__":`.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import IO, TypeVar

from prism_tune.errors import UserError
from prism_tune.interrupts import become_worker
from prism_tune.run.worker_processes import count_cores

_MOST_PROCESSES = 4
_SERVE = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from prism_tune.data.spawned import serve; serve(int(sys.argv[2]))"
)
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Process = subprocess.Popen[bytes]


def map_spawned(
    function: Callable[[_Item], _Made],
    items: Sequence[_Item],
    *,
    fewest: int,
    per_task: int = 1,
    most: int = _MOST_PROCESSES,
) -> Iterator[_Made]:
    """The function of each item, in their order.

    Args:
        function: at the top of a module, so that it can be sent.
        items: what it is called with.
        fewest: of fewer items, starting processes would take longer than the work.
        per_task: items sent at a time.
        most: of the processes; there are no more than cores.

    Raises:
        UserError: a process ended.
    """
    if len(items) < fewest:
        yield from map(function, items)
        return
    tasks = [items[start : start + per_task] for start in range(0, len(items), per_task)]
    num_processes = min(count_cores(), most, len(tasks))
    # The processes end before the threads that wait for them are waited for.
    with ThreadPoolExecutor(num_processes) as threads, _started(num_processes) as idle:

        def work(task: Sequence[_Item]) -> list[_Made]:
            process = idle.get()
            try:
                return _call(process, function, task)
            finally:
                idle.put(process)

        for made in threads.map(work, tasks):
            yield from made


def serve(parent: int) -> None:
    """Answer calls that come by stdin until it ends; what a library prints goes to stderr.

    Args:
        parent: the process that asks.
    """
    become_worker(parent)
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        while True:
            try:
                function, task = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump([function(item) for item in task], answers)
            answers.flush()


@contextmanager
def _started(number: int) -> Iterator[SimpleQueue[_Process]]:
    """Processes that wait for a call; gone at the end."""
    folders = [place for place in sys.path if isinstance(place, str)]  # others Python passes over
    command = [sys.executable, "-c", _SERVE, json.dumps(folders), str(os.getpid())]
    processes: list[_Process] = []
    idle: SimpleQueue[_Process] = SimpleQueue()
    try:
        for _ in range(number):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes.append(process)
            idle.put(process)
        yield idle
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _call(
    process: _Process, function: Callable[[_Item], _Made], task: Sequence[_Item]
) -> list[_Made]:
    asked, answers = _pipes(process)
    try:
        pickle.dump((function, task), asked)
        asked.flush()
        made: list[_Made] = pickle.load(answers)
    except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"a process that shared in the work has ended (code {process.wait()}); what it printed "
            "says why, and without a word the machine may be short of memory"
        ) from error
    return made


def _pipes(process: _Process) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
