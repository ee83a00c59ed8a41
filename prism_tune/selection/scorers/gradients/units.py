"""Gradients as methods read them: each record's norm, and its sketch at length 1.

Sketches are read block by block, so that a pool's (10.9 GB of 665K records) are never in memory.

Shape legend: M records, U rows of the store, B rows of a block, S numbers of a sketch, G groups,
T targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import RowBlocks
from prism_tune.selection.evidence.gradients.sketches import NAME
from prism_tune.selection.scorers.readable import none_readable
from prism_tune.selection.scorers.scorer import ScoringContext

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class UnitGradients:
    """The sketches of a pool, at length 1; a record without gradient (0, not finite) has 0.

    Attributes:
        rows_US: norm and sketch of every row of the store, (U, 1 + S).
        row_M: of each record.
        norm_M: of its gradient; NaN where that is not finite.
    """

    rows_US: RowBlocks
    row_M: IntArray
    norm_M: FloatArray

    @property
    def dimension(self) -> int:
        """S."""
        return int(self.rows_US.shape[1]) - 1

    def mean_of_groups(self, codes_M: IntArray, num_groups: int) -> FloatArray:
        """The mean unit row of each group, (G, S); a record of code -1 is in none."""
        sums_GS = np.zeros((num_groups, self.dimension))
        for records, units_BS in self._blocks(np.flatnonzero(codes_M >= 0)):
            order = np.argsort(codes_M[records], kind="stable")
            codes, first = np.unique(codes_M[records][order], return_index=True)
            sums_GS[codes] += np.add.reduceat(units_BS[order], first, axis=0)
        counts_G = np.bincount(codes_M[codes_M >= 0], minlength=num_groups)
        return sums_GS / np.maximum(counts_G, 1)[:, None]

    def multiply(self, targets_TS: FloatArray) -> FloatArray:
        """Each record's unit row with every target, (M, T)."""
        products_MT = np.zeros((len(self.row_M), len(targets_TS)))
        for records, units_BS in self._blocks(np.arange(len(self.row_M))):
            products_MT[records] = units_BS @ targets_TS.T
        return products_MT

    def _blocks(self, records: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """These records in the order of their rows, a block of the store at a time."""
        order = records[np.argsort(self.row_M[records], kind="stable")]
        rows = self.row_M[order]
        for start in range(0, self.rows_US.shape[0], _BLOCK_ROWS):
            first, last = np.searchsorted(rows, [start, start + _BLOCK_ROWS])
            if first == last:
                continue
            block = self.rows_US[slice(start, start + _BLOCK_ROWS)][:, 1:].astype(np.float64)
            lengths = np.linalg.norm(block, axis=1, keepdims=True)
            sound = np.isfinite(lengths) & (lengths > 0)
            units = np.divide(block, lengths, out=np.zeros_like(block), where=sound)
            yield order[first:last], units[rows[first:last] - start]


def read_gradients(context: ScoringContext) -> UnitGradients:
    """The sketches that a method reads.

    Raises:
        UserError: no record has a finite gradient.
    """
    rows_US, row_M = context.more_rows[NAME]
    norm_U = np.concatenate(
        [
            rows_US[slice(start, start + _BLOCK_ROWS)][:, 0].astype(np.float64)
            for start in range(0, rows_US.shape[0], _BLOCK_ROWS)
        ]
    )
    norm_M = np.where(np.isfinite(norm_U), norm_U, np.nan)[row_M]
    if np.isnan(norm_M).all():
        raise none_readable(context)
    return UnitGradients(rows_US, row_M, norm_M)
