"""How many records of each source a budget keeps, where the sources have weights.

Shape legend: M records, G sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.selection.scorers.pick_order import rank_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.subset import apportion
from prism_tune.selection.unranked import Unranked

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_LEAST_WEIGHT = 1e-12
"""Of the largest."""


def rank_by_quota(
    context: ScoringContext,
    orders_by_source: Mapping[str, IntArray],
    weights_G: FloatArray,
    diagnostics: Mapping[str, Any],
    unranked: Unranked,
) -> ScoredRecords:
    """Places over the whole pool that keep of each source what its weight says.

    By largest remainders of the number of records that are kept. Where only the cut will tell that
    number, as it counts tokens or a source is cut by itself, by Webster's method, which needs none.

    Args:
        context: of the scorer.
        orders_by_source: the records of each source, the first to be kept first.
        weights_G: of the sources, in the same order.
        diagnostics: what the manifest should say besides.
        unranked: records that could not be ranked.
    """
    orders, num_records = list(orders_by_source.values()), len(context.records_M)
    sizes_G = np.array([len(order) for order in orders])
    wanted = context.num_taken()
    if wanted is not None:
        quota_G = apportion(wanted, weights_G, sizes_G)
        quotas = dict(zip(orders_by_source, quota_G.tolist(), strict=True))
        picks = [interleave(orders, quota_G)]
        return rank_picks(num_records, picks, {**diagnostics, "quotas": quotas}, unranked)
    if not weights_G.any():
        weights_G = sizes_G.astype(np.float64)
    weights_G = floor_weights(weights_G)
    shares = dict(zip(orders_by_source, (weights_G / weights_G.sum()).tolist(), strict=True))
    ranked = rank_picks(num_records, orders, {**diagnostics, "quota_shares": shares}, unranked)
    return replace(ranked, values_M=place_by_weight(num_records, orders, weights_G))


def floor_weights(weights_G: FloatArray) -> FloatArray:
    """Weights to divide by: a source of none comes last; all alike where none has any."""
    least = _LEAST_WEIGHT * float(weights_G.max())
    result: FloatArray = np.maximum(weights_G, least) if least else np.ones_like(weights_G)
    return result


def interleave(orders: Sequence[IntArray], quota_G: IntArray) -> IntArray:
    """Each source's first records, as many as its quota, ordered by their place in the quota.

    So a smaller budget takes of each source in proportion.
    """
    kept = [order[:quota] for order, quota in zip(orders, quota_G.tolist(), strict=True)]
    shares = [(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in kept]
    by_share = np.argsort(np.concatenate(shares), kind="stable")
    result: IntArray = np.concatenate(kept)[by_share]
    return result


def most_by_weight(wanted: int, weights_G: FloatArray, sizes_G: IntArray) -> IntArray:
    """The most that `place_by_weight` lets so many records take of each source."""
    pairs = zip(weights_G.tolist(), sizes_G.tolist(), strict=True)
    places = [(np.arange(size) + 0.5) / weight for weight, size in pairs]
    last = np.partition(np.concatenate(places), wanted - 1)[wanted - 1]
    return np.array([int((of_source <= last).sum()) for of_source in places], dtype=np.int64)


def place_by_weight(
    num_records: int, orders: Sequence[IntArray], weights_G: FloatArray
) -> FloatArray:
    """(place + 1/2) / weight of the records that the orders name, all others behind them.

    The lowest of all sources together are Webster's apportionment by the weights: smaller budgets
    lie inside larger ones, and what a source does not have goes to the others.
    """
    values = np.full(num_records, np.inf)
    for order, weight in zip(orders, weights_G.tolist(), strict=True):
        values[order] = (np.arange(len(order)) + 0.5) / weight
    named = np.isfinite(values)
    values[~named] = values[named].max(initial=0.0) + 1
    return values
