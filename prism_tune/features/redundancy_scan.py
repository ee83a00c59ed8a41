"""The passes over feature rows that PRISM's score is summed up in, block by block on every core.

Centres, unit directions, and each record's projection on their sum (`redundancy.py` has the
formula).

Shape legend: U feature rows, P pairs of a row and a group, G groups, D feature width, B of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import (
    RowBlocks,
    default_block_rows,
    map_spans,
    rounding_share,
    widen,
)
from prism_tune.features.row_pairs import IntArray, RowPairs

Centering = Literal["corpus", "pearson", "none"]
FloatArray = NDArray[np.float64]

_CHUNK = 128  # single-precision dot products are summed in double precision every so many terms
_MAX_SPREAD = 16  # how many groups' segments a block is made to hold


class RedundancyScan:
    """The two or three passes over the feature rows. All sums are float64.

    Between passes sums alone are handed on, so that rows may lie on several nodes: each scans its
    own with the sizes of the whole groups, and the sums of all are added (`benchmarks/merge.py`).
    """

    def __init__(
        self, features_UD: RowBlocks, pairs: RowPairs, centering: Centering, block_rows: int | None
    ) -> None:
        wide = features_UD.dtype.itemsize > 2
        self.compute_dtype: np.dtype[np.floating] = np.dtype(np.float64 if wide else np.float32)
        self.features_UD = features_UD
        self.pairs = pairs
        self.centering = centering
        self.shape_GD = (len(pairs.size_G), features_UD.shape[1])
        # A segment (one group's rows of a block) is what has to fit into the cache.
        spread = min(self.shape_GD[0], _MAX_SPREAD)
        self.block_rows = block_rows or spread * default_block_rows(
            self.shape_GD[1], self.compute_dtype
        )
        self.finite_P = np.ones(len(pairs.row_P), dtype=bool)
        self.norms_P = np.zeros(len(pairs.row_P))
        self.scores_P = np.zeros(len(pairs.row_P))
        self.centres_GD = np.zeros(self.shape_GD)

    def measure_centres(self) -> None:
        """The mean feature of each group, over its finite records (centering "corpus")."""
        if self.centering != "corpus":
            return
        sums_GD, num_finite_G = self.sum_rows()
        self.centres_GD = sums_GD / np.maximum(num_finite_G, 1)[:, None]

    def sum_rows(self) -> tuple[FloatArray, NDArray[Any]]:
        """The sum of the finite records of each group, and their number."""
        sums_GD = self._accumulate(self._sum_rows)
        weights_P = self.pairs.count_P * self.finite_P
        return sums_GD, np.bincount(self.pairs.group_P, weights_P, minlength=self.shape_GD[0])

    def sum_directions(self) -> FloatArray:
        """The sum of unit vectors (s) of each group. Fills the centred norms on the way."""
        return self._accumulate(self._sum_units)

    def project(self, directions_GD: FloatArray) -> None:
        """R = (u.s - 1)/(N-1) for every pair; 0 where u is 0 or the record is alone."""
        narrow_GD = directions_GD.astype(self.compute_dtype)

        def project_segment(group: int, at: IntArray, rows_PD: NDArray[Any]) -> None:
            delta_PD, _ = self._centre(group, rows_PD)
            norms_P = self.norms_P[at]
            scored_P = norms_P > 0
            dots_P = _row_dots(delta_PD, narrow_GD[group])
            num_others = max(int(self.pairs.size_G[group]) - 1, 1)
            cosines_P = dots_P[scored_P] / norms_P[scored_P]
            self.scores_P[at[scored_P]] = (cosines_P - 1.0) / num_others
            if self.pairs.size_G[group] == 1:
                self.scores_P[at] = 0.0

        self._accumulate(project_segment)

    def _sum_rows(self, group: int, at: IntArray, rows_PD: NDArray[Any]) -> NDArray[Any]:
        weights_P = self.pairs.count_P[at].astype(self.compute_dtype)
        block_PD = widen(rows_PD, self.compute_dtype)
        sum_D = np.einsum("p,pd->d", weights_P, block_PD)
        if np.isfinite(sum_D).all():
            return sum_D
        finite_P = np.isfinite(block_PD).all(axis=1)
        self.finite_P[at] = finite_P
        return np.einsum("p,pd->d", weights_P[finite_P], block_PD[finite_P])

    def _sum_units(self, group: int, at: IntArray, rows_PD: NDArray[Any]) -> NDArray[Any]:
        delta_PD, noise = self._centre(group, rows_PD)
        norms_P = np.sqrt(_row_dots(delta_PD, delta_PD))
        self.finite_P[at] &= np.isfinite(norms_P)
        norms_P[~self.finite_P[at] | (norms_P <= noise)] = 0.0
        self.norms_P[at] = norms_P
        scored_P = norms_P > 0
        if not scored_P.all():
            delta_PD, norms_P, at = delta_PD[scored_P], norms_P[scored_P], at[scored_P]
        weights_P = (self.pairs.count_P[at] / norms_P).astype(self.compute_dtype)
        return np.einsum("p,pd->d", weights_P, delta_PD)

    def _centre(self, group: int, rows_PD: NDArray[Any]) -> tuple[NDArray[Any], FloatArray | float]:
        """Centred rows, and the largest norm that rounding alone can leave of them."""
        delta_PD = widen(rows_PD, self.compute_dtype)
        unit = rounding_share(np.dtype(self.features_UD.dtype))
        with np.errstate(invalid="ignore"):
            if self.centering == "corpus":
                centre_D = self.centres_GD[group]
                delta_PD -= centre_D.astype(self.compute_dtype)
                return delta_PD, unit * float(np.linalg.norm(centre_D))
            if self.centering == "pearson":
                width = self.shape_GD[1]
                means_P = _row_dots(delta_PD, np.ones(width, self.compute_dtype)) / width
                delta_PD -= means_P[:, None].astype(self.compute_dtype)
                return delta_PD, unit * np.sqrt(width) * np.abs(means_P)
        return delta_PD, 0.0

    def _accumulate(
        self, visit: Callable[[int, IntArray, NDArray[Any]], NDArray[Any] | None]
    ) -> FloatArray:
        """Visit every segment (pairs of one block and one group); sum what is returned by group."""

        def visit_span(blocks: list[tuple[int, int]]) -> dict[int, FloatArray]:
            sums: dict[int, FloatArray] = {}
            for start, stop in blocks:
                for group, at, rows_PD in self._segments(start, stop):
                    partial_D = visit(group, at, rows_PD)
                    if partial_D is not None:
                        sums[group] = sums.get(group, 0.0) + partial_D.astype(np.float64)
            return sums

        total_GD = np.zeros(self.shape_GD)
        for sums in map_spans(visit_span, self.features_UD.shape[0], self.block_rows):
            for group, sum_D in sums.items():
                total_GD[group] += sum_D
        return total_GD

    def _segments(self, start: int, stop: int) -> Iterator[tuple[int, IntArray, NDArray[Any]]]:
        first, last = np.searchsorted(self.pairs.row_P, [start, stop])
        if first == last:
            return
        block_BD = np.asarray(self.features_UD[start:stop])
        at_P = np.arange(first, last)
        groups_P = self.pairs.group_P[first:last]
        for group in np.unique(groups_P):
            at = at_P[groups_P == group]
            rows = self.pairs.row_P[at] - start
            whole = len(rows) == stop - start and rows[0] == 0 and rows[-1] == len(rows) - 1
            yield int(group), at, block_BD if whole else block_BD[rows]


def _row_dots(a_PD: NDArray[Any], b: NDArray[Any]) -> FloatArray:
    """Dot product of each row with b (a matrix's rows, or one vector), summed in float64."""
    total_P = np.zeros(len(a_PD))
    for start in range(0, a_PD.shape[1], _CHUNK):
        chunk = slice(start, start + _CHUNK)
        with np.errstate(over="ignore", invalid="ignore"):
            total_P += np.vecdot(a_PD[:, chunk], b[..., chunk])
    return total_P
