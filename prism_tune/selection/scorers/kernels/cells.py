"""The kernel inside cells of about sqrt(N) rows that lie together: O(N^1.5 K), not O(N^2 K).

Rows go in; for any choice of records, the exact kernel of every row with those of its cell comes
out. Rows far apart are in different cells and count as 0, which with a narrow kernel they are;
of near-copies a few in a hundred are parted.

Cells are k-means clusters, in double precision and our own, because the same rows have to make the
same cells in any order and with any number of threads: of two centres equally near, the one that
comes first is taken, also where rounding says otherwise. A cell that came out larger than
`_LARGEST` times sqrt(N) is clustered again, and cut where its rows are all equal, so that the cost
is bounded whatever the rows.

Shape legend: N rows, C cells or centres, K components, S sampled rows.
"""

from __future__ import annotations

import math

import numpy as np

from prism_tune.features.row_blocks import default_block_rows, map_spans
from prism_tune.features.row_pairs import split_by
from prism_tune.selection.scorers.kernels.density import (
    SAME,
    FloatArray,
    IntArray,
    Rbf,
    squared_distances,
)

_ITERATIONS = 10
_ROWS_PER_CENTRE = 64
"""That k-means looks at; all rows are then given to the nearest centre."""
_LARGEST = 4
_TIE = 1e-9
"""Of squared distances of unit vectors: above rounding, below any that matters."""
_CELLS_PER_BLOCK = 4

_WIDEST_SHARE = 0.25
_HALVINGS = 5
_MOST_MASS = 0.5
_LOOKED_AT = 1000


class CellKernel:
    """The kernel between the rows of a cell.

    Args:
        values_NK: the rows, in an order that is no accident of the pool's.
        cells: the rows of each cell.
        kernel: of two rows.
    """

    def __init__(self, values_NK: FloatArray, cells: list[IntArray], kernel: Rbf) -> None:
        self._order_N = np.concatenate(cells)
        self._values_NK = values_NK[self._order_N]  # a cell is a slice of these
        self._ends_C = np.cumsum([len(cell) for cell in cells])
        self._kernel = kernel

    def __len__(self) -> int:
        return len(self._order_N)

    def cover(self, weights_N: IntArray) -> FloatArray:
        """sum_j w_j k(x_i, x_j) over the rows j of i's cell, i among them, (N,)."""
        by_cell_N = weights_N[self._order_N]

        def visit(blocks: list[tuple[int, int]]) -> FloatArray:
            return np.concatenate(
                [self._cover_cell(cell, by_cell_N) for a, b in blocks for cell in range(a, b)]
            )

        sums_N = np.empty(len(self))
        parts = map_spans(visit, len(self._ends_C), _CELLS_PER_BLOCK)
        sums_N[self._order_N] = np.concatenate(list(parts))
        return sums_N

    def _cover_cell(self, cell: int, by_cell_N: IntArray) -> FloatArray:
        end = int(self._ends_C[cell])
        start = int(self._ends_C[cell - 1]) if cell else 0
        values_BK, weights_B = self._values_NK[start:end], by_cell_N[start:end]
        chosen = np.flatnonzero(weights_B)
        sums_B = np.zeros(len(values_BK))
        if len(chosen) == 0:
            return sums_B
        block_rows = default_block_rows(len(chosen), np.dtype(np.float64))
        for a in range(0, len(values_BK), block_rows):
            kernel = self._kernel(values_BK[a : a + block_rows], values_BK[chosen])
            sums_B[a : a + block_rows] = kernel @ weights_B[chosen]
        return sums_B


def find_cells(values_NK: FloatArray) -> list[IntArray]:
    """Cells of about sqrt(N) rows that lie together; every row is in one."""
    size = max(1, math.isqrt(len(values_NK)))
    cells, large = [], [np.arange(len(values_NK))]
    while large:
        members = large.pop()
        if len(members) <= _LARGEST * size:
            cells.append(members)
            continue
        labels = _cluster(values_NK[members], math.ceil(len(members) / size))
        parts = [members[at] for at in split_by(labels)]
        if len(parts) == 1:
            cells += np.split(members, range(size, len(members), size))
        else:
            large += reversed(parts)
    return cells


def _cluster(values_NK: FloatArray, num_centres: int) -> IntArray:
    """The nearest centre of every row, by k-means that starts at the first rows."""
    centres_CK = values_NK[:num_centres].copy()
    sample_SK = values_NK[: _ROWS_PER_CENTRE * num_centres]
    for _ in range(_ITERATIONS):
        nearest_S = _nearest(sample_SK, centres_CK)
        order_S = np.argsort(nearest_S, kind="stable")
        found, starts, counts = np.unique(nearest_S[order_S], return_index=True, return_counts=True)
        centres_CK[found] = np.add.reduceat(sample_SK[order_S], starts) / counts[:, None]
    return _nearest(values_NK, centres_CK)


def _nearest(values_NK: FloatArray, centres_CK: FloatArray) -> IntArray:
    """The nearest centre of every row, the first of those equally near."""
    heights_C = np.einsum("ck,ck->c", centres_CK, centres_CK) + _TIE * np.arange(len(centres_CK))
    turned_KC = -2 * centres_CK.T

    def visit(blocks: list[tuple[int, int]]) -> IntArray:
        return np.concatenate(
            [np.argmin(values_NK[a:b] @ turned_KC + heights_C, axis=1) for a, b in blocks]
        )

    block_rows = default_block_rows(len(centres_CK), np.dtype(np.float64))
    return np.concatenate(list(map_spans(visit, len(values_NK), block_rows)))


def narrow_bandwidth(values_NK: FloatArray, cells: list[IntArray], bandwidth: float) -> float:
    """A bandwidth at which only rows that are nearly the same cover each other.

    A quarter of the kernel's, halved up to five times as long as the median row has more kernel
    mass from the other rows of its cell than half a row: where a pool is so dense that ordinary
    neighbours are that near, a copy would be one of many. Equal rows do not count: no bandwidth
    tells them apart.

    Args:
        values_NK: the rows; the first 1,000 are looked at.
        cells: of `find_cells`.
        bandwidth: the kernel's.
    """
    looked_at = []
    for cell in cells:
        drawn = cell[cell < _LOOKED_AT]
        distances = squared_distances(values_NK[drawn], values_NK[cell])
        distances[distances < SAME] = np.inf
        looked_at.append(distances)
    narrow = _WIDEST_SHARE * bandwidth
    for _ in range(_HALVINGS):
        masses = [np.exp(distances * (-0.5 / narrow)).sum(axis=1) for distances in looked_at]
        if np.median(np.concatenate(masses)) <= _MOST_MASS:
            break
        narrow /= 2
    return narrow
