"""Processes that work for this one: how many there may be, where they meet, what ends them.

Loaders' hand batches over in shared memory, of which containers have 64 MB by default. Where it is
full a worker cannot, and who waits for the batch waits for ever: so it is counted before the first
is asked for, and a worker that cannot hand one over all the same ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing import util
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, TypeVar

from prism_tune.processes import local_world_size

logger = logging.getLogger(__name__)
Loader = TypeVar("Loader", bound=Any)

SHARED_MEMORY = Path("/dev/shm")
_USABLE = 0.8
"""Of what is free now: other processes of the machine use it, too."""
_LONGEST_FOLDER = 70
"""Bytes: a socket's path has 103 (Linux: 107), of them `/pymp-xxxxxxxx/listener-xxxxxxxx`."""


def count_cores() -> int:
    """Those that this process may use; where the system does not say (macOS), all there are."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1


def fit_workers(num_workers: int, batch_bytes: int, *, prefetch: int = 2) -> int:
    """The number of workers, or the most whose batches there is room for; says so.

    Args:
        num_workers: as configured.
        batch_bytes: of the tensors of one batch, at most.
        prefetch: batches that a worker has ready.

    Returns:
        0 where there is room for none: the batches are made in the process itself.
    """
    if num_workers == 0 or batch_bytes == 0 or not SHARED_MEMORY.is_dir():
        return num_workers
    free = shutil.disk_usage(SHARED_MEMORY).free
    share = _USABLE * free / local_world_size()
    fitting = max(0, int((share / batch_bytes - 1) // prefetch))  # one is in use
    if fitting >= num_workers:
        return num_workers
    logger.warning(
        "shared memory (%s): %.0f MiB free, and %d workers need %.0f MiB for their batches: going "
        "on with %d%s; docker run --shm-size 16g gives more",
        SHARED_MEMORY,
        free / 2**20,
        num_workers,
        (num_workers * prefetch + 1) * batch_bytes / 2**20,
        fitting,
        " (batches are made in this process, slower)" if fitting == 0 else "",
    )
    return fitting


def count_bytes(batch: Mapping[str, Any]) -> int:
    """Of the tensors of a batch or an example."""
    return sum(int(getattr(value, "nbytes", 0)) for value in batch.values())


def end_unheard_workers(loader: Loader) -> Loader:
    """The loader; a worker of it that cannot hand over what it has read ends, and says why."""
    own: Any = getattr(loader, "base_dataloader", loader)  # accelerate's holds the one that works
    own.worker_init_fn = partial(_begin_worker, own.worker_init_fn)
    if own.num_workers:
        place_sockets()
    return loader


def as_it_is(value: Any) -> Any:
    """A loader's `collate_fn` where its items are what is handed over."""
    return value


def place_sockets() -> None:
    """Make the folder of multiprocessing's sockets, also the workers'; it goes with this process.

    The kernel takes short paths only: where TMPDIR's is long, it is made in /tmp.
    """
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = before


def _begin_worker(own: Callable[[int], None] | None, number: int) -> None:
    """In the worker, before it has begun to hand over."""
    Queue._on_queue_feeder_error = staticmethod(_end_unheard)  # type: ignore[attr-defined]
    if own is not None:
        own(number)


def _end_unheard(error: Exception, _: object) -> None:
    """Python would print it and go on."""
    sys.stderr.write(f"a process that reads images cannot hand over what it has read: {error}\n")
    sys.stderr.flush()
    os._exit(1)
