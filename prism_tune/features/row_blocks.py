"""Reading a feature matrix in blocks of rows, with several threads.

An ndarray, a memory map or a feature store goes in; views on blocks of rows come out. No more
than a few blocks per thread are in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 2 << 20
"""Of one block in the arithmetic's precision: what a core's cache holds."""

_BLOCKS_PER_SPAN = 4
_MAX_THREADS = 8

Result = TypeVar("Result")


class RowBlocks(Protocol):
    """What a feature matrix has to offer: ndarray, np.memmap and `StoredRows` do."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """A floating-point type."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """A block of rows."""


def default_block_rows(width: int, dtype: np.dtype[Any]) -> int:
    """How many rows of `width` values of `dtype` make a block."""
    return max(1, BLOCK_BYTES // max(1, width * dtype.itemsize))


def map_spans(
    visit: Callable[[list[tuple[int, int]]], Result], num_rows: int, block_rows: int
) -> Iterator[Result]:
    """Call `visit` on spans of consecutive blocks, in threads; results come in the spans' order.

    The spans depend on the sizes only, not on the number of threads, so that sums over the
    results are reproducible. `visit` gets the (start, stop) of the blocks of one span.
    """
    blocks = [(a, min(a + block_rows, num_rows)) for a in range(0, num_rows, block_rows)]
    spans = [blocks[i : i + _BLOCKS_PER_SPAN] for i in range(0, len(blocks), _BLOCKS_PER_SPAN)]
    with ThreadPoolExecutor(_num_threads()) as pool:
        yield from pool.map(visit, spans)


def _num_threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(available or 1, _MAX_THREADS)
