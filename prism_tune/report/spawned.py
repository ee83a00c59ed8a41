"""Work of a report that is shared out to a few processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from prism_tune.interrupts import become_worker

_MAX_PROCESSES = 4
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def map_spawned(
    function: Callable[[_Item], _Made], items: Sequence[_Item], *, fewest: int, per_task: int = 1
) -> Iterator[_Made]:
    """The function of each item, in their order.

    Args:
        function: at the top of a module, so that it can be sent.
        items: what it is called with.
        fewest: of fewer items, starting processes would take longer than the work.
        per_task: items sent at a time.
    """
    if len(items) < fewest:
        yield from map(function, items)
        return
    # Spawned, not forked: this process runs threads.
    num_processes = min(os.cpu_count() or 1, _MAX_PROCESSES, len(items))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_processes, mp_context=context, initializer=become_worker, initargs=(os.getpid(),)
    ) as processes:
        yield from processes.map(function, items, chunksize=per_task)
