"""Reading a feature matrix in blocks of rows, with several threads.

An ndarray, a memory map or a feature store goes in; views on blocks of rows come out. No more
than a few blocks per thread are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from prism_tune.run.worker_processes import count_cores

BLOCK_BYTES = 2 << 20
"""Of one block in the arithmetic's precision: what a core's cache holds."""

_INFINITE = np.int16(0x7C00)
"""Bits of a float16 from which on, without the sign, it is infinite or not a number."""
_MAGNITUDE = np.int16(0x7FFF)
_SIGN_AND_VALUE = np.int32(-0x70002000)
_REBIAS = np.float32(2.0**112)

_ROUNDING_UNITS = 64
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


def rounding_share(dtype: np.dtype[Any]) -> float:
    """The largest length, as a share of its centre's, that rounding can leave of a centred row.

    By the precision in which features are stored, whatever they are computed in: the same picture
    in two files differs by the last bits. Of types narrower than float32 it is float32's, in which
    they are computed: their own is as coarse as what tells the features of a narrow cone apart.
    """
    stored = dtype.type if dtype.itemsize > 2 else np.float32
    eps = max(np.finfo(np.float64).eps, np.finfo(stored).eps)
    return _ROUNDING_UNITS * float(eps)


def default_block_rows(width: int, dtype: np.dtype[Any]) -> int:
    """How many rows of `width` values of `dtype` make a block."""
    return max(1, BLOCK_BYTES // max(1, width * dtype.itemsize))


def widen(block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A copy in another precision, bit for bit as by `astype`, of float16 in a quarter of its time.

    NumPy converts half precision number by number. Here the bits are moved to where float32 has
    them, all at once; what is then left of the exponent's bias is a product with 2^112, exact also
    for subnormal numbers. Blocks with infinities or NaN are left to NumPy.
    """
    if block.dtype != np.float16 or dtype.itemsize < 4:
        return block.astype(dtype)
    bits = block.view(np.int16)
    if (bits & _MAGNITUDE).max(initial=0) >= _INFINITE:
        return block.astype(dtype)
    moved = bits.astype(np.int32)
    moved <<= 13
    moved &= _SIGN_AND_VALUE
    result: NDArray[Any] = moved.view(np.float32)
    result *= _REBIAS
    return result.astype(dtype, copy=False)


def unit_rows(rows_BD: NDArray[Any]) -> NDArray[Any]:
    """Rows at length 1; a row of zeros stays one."""
    norms_B1 = np.linalg.norm(rows_BD, axis=1, keepdims=True)
    norms_B1[norms_B1 == 0] = np.inf
    return rows_BD / norms_B1


def even_places(number: int, most: int, *, nearest: bool = False) -> NDArray[np.int64]:
    """At most so many of `number` places, evenly spaced from the first to the last.

    Args:
        number: of the places.
        most: of those returned.
        nearest: round to the nearest place, not down.
    """
    places = np.linspace(0, number - 1, min(most, number))
    return np.unique((places.round() if nearest else places).astype(np.int64))


def map_spans(
    visit: Callable[[list[tuple[int, int]]], Result], num_rows: int, block_rows: int
) -> Iterator[Result]:
    """Call `visit` on spans of consecutive blocks, in threads; results come in the spans' order.

    The spans depend on the sizes only, not on the number of threads, so that sums over the
    results are reproducible. `visit` gets the (start, stop) of the blocks of one span.
    """
    blocks = [(a, min(a + block_rows, num_rows)) for a in range(0, num_rows, block_rows)]
    spans = [blocks[i : i + _BLOCKS_PER_SPAN] for i in range(0, len(blocks), _BLOCKS_PER_SPAN)]
    with ThreadPoolExecutor(min(count_cores(), _MAX_THREADS)) as pool:
        yield from pool.map(visit, spans)
