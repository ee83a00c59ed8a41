"""Selectors that pick one record after the other: what they share.

Features and a rule for the next pick go in; the place of every pick comes out as its score, so
that smaller budgets are nested in larger ones. Only as many are picked as the budget can take; the
others share the last place, where a hash of the uid decides.

All runs in the order of the uids' hashes, so the picks owe nothing to the pool's order.

Shape legend: M records, P pairs of a feature row and a group, B pairs of a group, K components,
G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count
from prism_tune.features.reduction import reduce_features
from prism_tune.features.row_pairs import RowPairs
from prism_tune.selection.scorer_options import ScorerOptions, read_options
from prism_tune.selection.scorers.kernels.density import SAME
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids
from prism_tune.selection.unranked import Unranked

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ChooseNext = Callable[[FloatArray, NDArray[np.int64], np.random.Generator], int]
"""Squared distances to the nearest pick, and how many records each is; the next pick out of it."""

_BLOCK_ROWS = 4096


class PickOptions(ScorerOptions):
    """`selection.options` of kcenter and kmeanspp; null keeps every component."""

    num_components: Count | None = Field(default=64, description="a positive number, or null")


def score_picks(context: ScoringContext, choose_next: ChooseNext) -> ScoredRecords:
    """The place of every picked record, from 0, inside its group; the rest share the next one."""
    options = read_options(context.config, PickOptions)
    features_UD, pairs = context.paired_rows()
    reduced = reduce_features(features_UD, pairs, num_components=options.num_components)
    uids = context.uids
    first_P = first_records(pairs, hash_uids(uids))
    wanted_G = context.most_taken(pairs.size_G)
    chosen = []
    for members, wanted in zip(pairs.members(), wanted_G.tolist(), strict=True):
        at = members[np.argsort(hash_uids([uids[i] for i in first_P[members].tolist()]))]
        rng = np.random.default_rng(context.config.seed)
        picks = pick(reduced.values_PK[at], pairs.count_P[at], wanted, choose_next, rng)
        chosen.append(first_P[at[picks]])
    return rank_picks(len(uids), chosen, reduced.diagnostics, mark_rows(reduced, pairs))


def mean_ranks(values_M: FloatArray) -> FloatArray:
    """Ranks from 0, the mean of theirs for equal values."""
    _, place_M, counts = np.unique(values_M, return_inverse=True, return_counts=True)
    ranks: FloatArray = np.cumsum(counts) - (counts + 1) / 2
    return ranks[place_M]


def rank_picks(
    num_records: int,
    picks: Sequence[IntArray],
    diagnostics: Mapping[str, Any],
    unranked: Unranked,
) -> ScoredRecords:
    """Places as scores: each group's picked records in their order, then all others together."""
    num_picked = sum(len(chosen) for chosen in picks)
    values_M = np.full(num_records, float(num_picked))
    for chosen in picks:
        values_M[chosen] = np.arange(len(chosen))
    return ScoredRecords(values_M, {**diagnostics, "num_picked": num_picked}, unranked)


def pick(
    values_BK: FloatArray,
    counts_B: IntArray,
    num_picks: int,
    choose_next: ChooseNext,
    rng: np.random.Generator,
) -> IntArray:
    """Pick rows; stops early where every row coincides with a pick.

    Args:
        values_BK: rows of norm 1 (or 0).
        counts_B: how many records have each row.
        num_picks: at most so many.
        choose_next: the rule.
        rng: of the first pick and of the rule.
    """
    chances_B = np.cumsum(counts_B)
    picks = [int(np.searchsorted(chances_B, rng.random() * chances_B[-1], side="right"))]
    nearest_B = np.full(len(values_BK), np.inf)
    norms_B = np.einsum("bk,bk->b", values_BK, values_BK)
    while True:
        lower_distances(nearest_B, values_BK, norms_B, picks[-1])
        if len(picks) >= num_picks or not nearest_B.any():
            return np.array(picks[:num_picks], dtype=np.int64)
        picks.append(choose_next(nearest_B, counts_B, rng))


def lower_distances(
    nearest_B: FloatArray, values_BK: FloatArray, norms_B: FloatArray, last: int
) -> None:
    """Take the last pick into account, in place, block by block."""
    for start in range(0, len(values_BK), _BLOCK_ROWS):
        at = slice(start, start + _BLOCK_ROWS)
        distances = norms_B[at] + norms_B[last] - 2 * (values_BK[at] @ values_BK[last])
        distances[distances < SAME] = 0.0
        np.minimum(nearest_B[at], distances, out=nearest_B[at])
    nearest_B[last] = 0.0


def first_records(pairs: RowPairs, hashes_M: NDArray[np.uint64]) -> IntArray:
    """Of the records that share a feature and a group, the one with the smallest hash."""
    of_record_M = pairs.of_record_N
    assert of_record_M is not None
    order_M = np.argsort(hashes_M, kind="stable")
    _, first_P = np.unique(of_record_M[order_M], return_index=True)
    return order_M[first_P]
