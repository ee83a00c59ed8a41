"""The records closest to some: exact cosines of features, centred as the run centred them.

Two passes over the stored features, block by block: the centre of every group (a source, with
`scope: per_source`; else the pool), then the cosines of every row with the asked records of its
group. Nothing larger than a block is held.

Shape legend: N records of the pool, M records with a score and a feature, Q asked records, P pairs
of a feature row and a group, K neighbours, B pairs of a block, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.redundancy_scan import Centering
from prism_tune.features.row_blocks import rounding_share
from prism_tune.features.shards import RecordFeatures

IntArray = NDArray[np.int64]
Rows = NDArray[np.float32]

NUM_NEIGHBOURS = 4

_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class Neighbour:
    """A record of the pool; `num_sharing` records of the group have its very feature."""

    row: int
    cosine: float
    num_sharing: int


@dataclass(frozen=True)
class Neighbours:
    """What stands closest to a record in its group, closest first, each feature once.

    `same_image` are records of the whole pool that share the record's feature: the first
    `NUM_NEIGHBOURS` of `num_same_image`, kept ones first. They are not in the other lists.
    """

    nearest: tuple[Neighbour, ...]
    nearest_kept: tuple[Neighbour, ...]
    same_image: tuple[int, ...]
    num_same_image: int


@dataclass(frozen=True)
class Candidates:
    """The records of a pool among which neighbours are sought.

    Only those that `is_ranked_N` are; `is_kept_N` says which of them a selection kept, `group_N`
    whose centre and neighbours each one shares.
    """

    features: RecordFeatures
    is_ranked_N: NDArray[np.bool_]
    is_kept_N: NDArray[np.bool_]
    group_N: NDArray[np.int32]


def find_neighbours(
    candidates: Candidates, centering: Centering, rows: Iterable[int]
) -> dict[int, Neighbours]:
    """The neighbours of some records, by row; without those that have no feature.

    A feature that is zero after centring has cosine 0 with every other.
    """
    pairs, features = _Pairs(candidates), candidates.features
    asked = np.array([row for row in rows if pairs.of_record_N[row] >= 0], dtype=np.int64)
    if len(asked) == 0:
        return {}
    search = _Search(pairs, features, centering, np.unique(pairs.of_record_N[asked]))
    search.measure_centres()
    search.compare()
    return {row: search.describe(row) for row in asked.tolist()}


class _Pairs:
    """The distinct (feature row, group) of the records, in the order of feature rows."""

    def __init__(self, candidates: Candidates) -> None:
        row_N = candidates.features.row_N
        self.records_M = np.flatnonzero((row_N >= 0) & candidates.is_ranked_N)
        row_M = row_N[self.records_M]
        group_M = candidates.group_N[self.records_M].astype(np.int64)
        num_groups = int(group_M.max(initial=0)) + 1
        codes_P, of_M = np.unique(row_M * num_groups + group_M, return_inverse=True)
        self.row_P, self.group_P = np.divmod(codes_P, num_groups)
        self.count_P = np.bincount(of_M, minlength=len(codes_P))
        kept_M = candidates.is_kept_N[self.records_M]
        self.kept_P = np.bincount(of_M, kept_M, minlength=len(codes_P)) > 0
        self._is_kept_N = candidates.is_kept_N
        self.of_record_N = np.full(len(row_N), -1, dtype=np.int64)
        self.of_record_N[self.records_M] = of_M
        # Records by pair, kept ones first: pair p has order_M[starts_P[p] : starts_P[p + 1]].
        self._order_M = self.records_M[np.lexsort((~kept_M, of_M))]
        self._starts_P = np.concatenate([[0], np.cumsum(self.count_P)])

    def records_of(self, pair: int) -> list[int]:
        """Rows of the pool, kept ones first."""
        found: list[int] = self._order_M[self._starts_P[pair] : self._starts_P[pair + 1]].tolist()
        return found

    def records_of_row(self, row: int) -> list[int]:
        """Those of all groups that have a feature row, kept ones first."""
        pairs = range(*np.searchsorted(self.row_P, [row, row + 1]).tolist())
        found = [record for pair in pairs for record in self.records_of(pair)]
        return sorted(found, key=lambda record: not self._is_kept_N[record])


class _Search:
    """The two passes; `asked_Q` are pairs."""

    def __init__(
        self, pairs: _Pairs, features: RecordFeatures, centering: Centering, asked_Q: IntArray
    ) -> None:
        self._pairs = pairs
        self._features = features
        self._centering = centering
        self._asked_Q = asked_Q
        self._groups = np.unique(pairs.group_P[asked_Q])
        self._centres: dict[int, NDArray[np.float64]] = {}
        shape = (len(asked_Q), NUM_NEIGHBOURS)
        self._cosines = {kept: np.full(shape, -np.inf, np.float32) for kept in (False, True)}
        self._found = {kept: np.full(shape, -1, np.int64) for kept in (False, True)}

    def measure_centres(self) -> None:
        """The mean feature of each group's records (centering "corpus")."""
        if self._centering != "corpus":
            return
        width = self._features.values_UD.shape[1]
        numbers = dict.fromkeys(self._groups.tolist(), 0)
        self._centres = {group: np.zeros(width) for group in numbers}
        for group, at_B, rows_BD in self._segments():
            weights_B = self._pairs.count_P[at_B].astype(np.float32)
            self._centres[group] += weights_B @ rows_BD
            numbers[group] += int(weights_B.sum())
        for group, number in numbers.items():
            self._centres[group] /= max(number, 1)

    def compare(self) -> None:
        """Cosines of every pair with the asked ones of its group; the best are remembered."""
        first_Q = np.array([self._pairs.records_of(pair)[0] for pair in self._asked_Q.tolist()])
        raw_QD = self._features.read(first_Q)
        groups_Q = self._pairs.group_P[self._asked_Q]
        units = {}
        for group in self._groups.tolist():
            units[group] = self._normalise(group, raw_QD[groups_Q == group])
            units[group][~units[group].any(axis=1)] = np.nan  # no direction: no neighbours
        places = {group: np.flatnonzero(groups_Q == group) for group in units}
        for group, at_B, rows_BD in self._segments():
            units_BD = self._normalise(group, rows_BD)
            kept_B = self._pairs.kept_P[at_B]
            step = max(1, _BLOCK_BYTES // (4 * len(at_B)))
            for start in range(0, len(places[group]), step):
                of_group = places[group][start : start + step]
                cosines_QB = units[group][start : start + step] @ units_BD.T
                cosines_QB[self._asked_Q[of_group][:, None] == at_B[None, :]] = -np.inf
                self._remember(False, of_group, cosines_QB, at_B)
                self._remember(True, of_group, cosines_QB[:, kept_B], at_B[kept_B])

    def describe(self, row: int) -> Neighbours:
        """The neighbours of a record whose pair was asked."""
        pair = int(self._pairs.of_record_N[row])
        place = int(np.searchsorted(self._asked_Q, pair))
        having = self._pairs.records_of_row(int(self._pairs.row_P[pair]))
        sharing = [other for other in having if other != row]
        return Neighbours(
            nearest=self._list(False, place),
            nearest_kept=self._list(True, place),
            same_image=tuple(sharing[:NUM_NEIGHBOURS]),
            num_same_image=len(sharing),
        )

    def _list(self, kept: bool, place: int) -> tuple[Neighbour, ...]:
        found = [
            (min(float(cosine), 1.0), int(pair))
            for cosine, pair in zip(
                self._cosines[kept][place], self._found[kept][place], strict=True
            )
            if np.isfinite(cosine)
        ]
        return tuple(
            Neighbour(self._pairs.records_of(pair)[0], cosine, int(self._pairs.count_P[pair]))
            for cosine, pair in sorted(found, key=lambda item: (-item[0], item[1]))
        )

    def _remember(self, kept: bool, places: IntArray, cosines_QB: Rows, at_B: IntArray) -> None:
        cosines = np.concatenate([self._cosines[kept][places], cosines_QB], axis=1)
        pairs = np.concatenate(
            [self._found[kept][places], np.broadcast_to(at_B, cosines_QB.shape)], axis=1
        )
        best = np.argpartition(-cosines, NUM_NEIGHBOURS - 1, axis=1)[:, :NUM_NEIGHBOURS]
        self._cosines[kept][places] = np.take_along_axis(cosines, best, axis=1)
        self._found[kept][places] = np.take_along_axis(pairs, best, axis=1)

    def _normalise(self, group: int, rows_BD: Rows) -> Rows:
        """Centred rows of length 1; zero where nothing but rounding is left."""
        noise: float | Rows = 0.0
        unit = rounding_share(np.dtype(np.float32))
        if self._centering == "corpus":
            centre_D = self._centres[group]
            noise = unit * float(np.linalg.norm(centre_D))
            rows_BD = rows_BD - centre_D.astype(np.float32)
        elif self._centering == "pearson":
            means_B1 = rows_BD.mean(axis=1, keepdims=True)
            noise = unit * np.sqrt(rows_BD.shape[1]) * np.abs(means_B1)
            rows_BD = rows_BD - means_B1
        norms_B1: Rows = np.linalg.norm(rows_BD, axis=1, keepdims=True)
        norms_B1[norms_B1 <= noise] = np.inf
        return rows_BD / norms_B1

    def _segments(self) -> Iterator[tuple[int, IntArray, Rows]]:
        """(group, its pairs, their features) of every block; without what is not finite."""
        values_UD = self._features.values_UD
        block_rows = max(1, _BLOCK_BYTES // (4 * values_UD.shape[1]))
        for start in range(0, values_UD.shape[0], block_rows):
            first, last = np.searchsorted(self._pairs.row_P, [start, start + block_rows])
            if first == last:
                continue
            block = values_UD[start : start + block_rows]
            finite = np.asarray(np.isfinite(block).all(axis=1))
            at_P = np.arange(first, last)[finite[self._pairs.row_P[first:last] - start]]
            for group in np.intersect1d(self._pairs.group_P[at_P], self._groups).tolist():
                at_B = at_P[self._pairs.group_P[at_P] == group]
                yield group, at_B, block[self._pairs.row_P[at_B] - start]
