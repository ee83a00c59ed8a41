"""What a record of a run is like: its neighbours, its near-duplicates, its cluster.

Features of a finished selection go in; rows and labels of the pool's records come out. Neighbours
are exact, after the run's own centring and inside the source with `scope: per_source`;
near-duplicates are sought inside it as well. Clusters are of the whole pool, as its map is.

Shape legend: N records of the pool, U features, S sampled records, K kept ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.closest import Candidates, Neighbours, find_neighbours
from prism_tune.features.likeness import Sketches, find_clusters, find_duplicates
from prism_tune.features.row_blocks import even_places
from prism_tune.report.views import find_groups
from prism_tune.results.records import RecordTable
from prism_tune.results.runs import FinishedRun

RELATIVE_COSINE = 0.3
"""A kept record from this cosine on speaks for a dropped one; unrelated ones stand at about 0."""

_LOOKED_AT = 4000  # dropped records of a large pool among which the loneliest are sought
_LONELIEST = 60


@dataclass(frozen=True)
class Labels:
    """Near-duplicates and clusters of the records, numbered from 1, the largest first; 0: none.

    A group of near-duplicates has two records or more; those that share an image are one.
    """

    group_N: NDArray[np.int32]
    cluster_N: NDArray[np.int32]


class Relatives:
    """Of one run; without features nothing is found, and `absent` says why."""

    def __init__(self, run: FinishedRun, records: RecordTable) -> None:
        self._run = run
        self._records = records
        self._per_source = run.config.selection.scope == "per_source"
        self.absent = _why_none(run)

    def find(self, rows: Iterable[int]) -> dict[int, Neighbours]:
        """Neighbours by row, of the rows that have a feature."""
        if self.absent or self._run.features is None:
            return {}
        records = self._records
        group_N = find_groups(records, per_source=self._per_source)
        candidates = Candidates(
            self._run.features, records.is_ranked_N, records.selected_N, group_N
        )
        return find_neighbours(candidates, self._run.config.selection.centering, rows)

    def label(self) -> Labels:
        """Which records look alike."""
        features = self._run.features
        if self.absent or features is None:
            none_N = np.zeros(len(self._records), dtype=np.int32)
            return Labels(none_N, none_N)
        row_N = features.row_N
        duplicate_U = find_duplicates(self._sketches)
        alone_U = duplicate_U < 0
        duplicate_U[alone_U] = np.arange(alone_U.sum()) + duplicate_U.max(initial=-1) + 1
        whole_U = np.zeros(features.values_UD.shape[0], dtype=np.int64)
        pool = Sketches(features.values_UD, whole_U) if self._per_source else self._sketches
        return Labels(_number(duplicate_U, row_N, fewest=2), _number(find_clusters(pool), row_N))

    def find_lonely(self) -> list[int]:
        """Dropped records that are probably far from every kept one: to be looked at exactly.

        Of at most 4,000, evenly spaced over the dropped ones; by sketches.
        """
        if self.absent or self._run.features is None:
            return []
        records, row_N = self._records, self._run.features.row_N
        usable_N = records.is_ranked_N & (row_N >= 0)
        group_N = find_groups(records, per_source=self._per_source)
        dropped = np.flatnonzero(usable_N & ~records.selected_N)
        kept_K = np.flatnonzero(usable_N & records.selected_N)
        if len(dropped) == 0 or len(kept_K) == 0:
            return []
        sampled_S = dropped[even_places(len(dropped), _LOOKED_AT, nearest=True)]
        nearest_S = np.full(len(sampled_S), -np.inf)
        for group in np.unique(group_N[sampled_S]).tolist():
            of_group = np.flatnonzero(group_N[sampled_S] == group)
            kept = np.unique(row_N[kept_K[group_N[kept_K] == group]])
            nearest_S[of_group] = self._nearest(row_N[sampled_S[of_group]], kept)
        order = np.argsort(nearest_S, kind="stable")[:_LONELIEST]
        found: list[int] = sampled_S[order].tolist()
        return found

    def _nearest(self, rows: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[np.float32]:
        """The highest cosine of each feature with the kept ones, by sketches; -inf without any."""
        best = np.full(len(rows), -np.inf, dtype=np.float32)
        units = self._sketches.unit_UP[rows]
        for start in range(0, len(kept), 1024):
            near = units @ self._sketches.unit_UP[kept[start : start + 1024]].T
            np.maximum(best, near.max(axis=1), out=best)
        return best

    @cached_property
    def _sketches(self) -> Sketches:
        features = self._run.features
        assert features is not None
        with_one = np.flatnonzero(features.row_N >= 0)[::-1]  # of several the first record decides
        source_U = np.zeros(features.values_UD.shape[0], dtype=np.int64)
        group_N = find_groups(self._records, per_source=self._per_source)
        source_U[features.row_N[with_one]] = group_N[with_one]
        return Sketches(features.values_UD, source_U)


def closest_kept(neighbours: Neighbours, records: RecordTable) -> float:
    """The cosine of the closest kept record; -inf where nothing of its group was kept."""
    if any(records.selected_N[row] for row in neighbours.same_image):
        return 1.0
    return neighbours.nearest_kept[0].cosine if neighbours.nearest_kept else -np.inf


def _why_none(run: FinishedRun) -> str:
    selection = run.config.selection
    if selection.scorer == "alignment" or selection.features == "pair":
        return "This selector compares a record's image with its own text, not records."
    if selection.features == "text":
        return "This selector compares records by their texts, not by their images."
    if run.features is None:
        return "There are no features to compare records by."
    return ""


def _number(
    label_U: NDArray[np.int32], row_N: NDArray[np.int64], fewest: int = 1
) -> NDArray[np.int32]:
    """Labels of features as numbers of records: 1 for the one with the most; 0 below `fewest`."""
    label_N = np.where(row_N >= 0, label_U[row_N], -1)
    sizes = np.bincount(label_N[label_N >= 0], minlength=1)
    order = np.argsort(-sizes, kind="stable")
    number = np.zeros(len(sizes) + 1, dtype=np.int32)  # the last is that of -1
    number[order] = np.arange(len(sizes)) + 1
    number[:-1][sizes < fewest] = 0
    numbered: NDArray[np.int32] = number[label_N]
    return numbered
