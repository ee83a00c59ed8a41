"""Cutting scored records to a budget.

Scores and a budget go in; which records are kept, their rank and the reason for each come out.

One total order decides: a record's place among the image records of its group (its source, or the
whole pool), divided by the group's size. The budget takes the first K of that order. So every
source keeps its share to the nearest record, the total is exact, and a smaller budget always lies
inside a larger one (this is Webster's apportionment, which never takes a seat back). Where tokens
are counted, a record is as large as its tokens: its place is the tokens before it and half its own.

Worked example, sources A (4 records) and B (2), budget 0.5 -> K = 3. Places (rank + 1/2)/size:
A 1/8, 3/8, 5/8, 7/8; B 1/4, 3/4. The first three are A's first, B's first, A's second.

Shape legend: N records, R records that are ranked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.selection.rooms import (
    BoolArray,
    Counting,
    IntArray,
    find_rooms,
    kept_beside,
    must_keep,
    record_sizes,
)

Keep = Literal["low", "middle", "high"]
Reason = Literal["selected", "must_keep", "text_only", "below_cut", "text_dropped"]
FloatArray = NDArray[np.float64]


_IMAGES = Counting()


@dataclass(frozen=True)
class Cut:
    """What was kept.

    `rank_N` counts from 1, in the order of keeping, inside the record's group; 0 for records that
    are not ranked: text-only ones, unless they are a source of their own.
    """

    selected_N: BoolArray
    rank_N: IntArray
    reasons: list[Reason]


def cut_subset(
    scores_N: FloatArray,
    *,
    uids: Sequence[str],
    is_text_only_N: BoolArray,
    budget: float | int,
    keep: Keep,
    groups_N: NDArray[Any] | None = None,
    counting: Counting = _IMAGES,
) -> Cut:
    """Keep `budget` of the records.

    Args:
        scores_N: scores of all records, NaN where one has none: it comes last. Those of text-only
            records count only where these are a source of their own.
        uids: the records' uids; equal scores are ordered by a hash of these, never by position.
        is_text_only_N: which records have no image.
        budget: a fraction (float) or a number (int) of what is counted.
        keep: the lowest, the most central or the highest scores of each group.
        groups_N: a label per record to cut inside of; None cuts over the whole pool.
        counting: what the budget counts, and which records it has no say on.

    Raises:
        UserError: a budget that keeps none, or more than there are, or less than has to be kept.
    """
    text_N = np.asarray(is_text_only_N, dtype=bool)
    must_N = must_keep(counting, len(text_N))
    ranked = np.flatnonzero(~text_N | (counting.text_only == "own_source"))
    codes_R = _group_codes(groups_N, text_N, ranked)
    ties_R = hash_uids([uids[i] for i in ranked.tolist()])
    scores_R = np.asarray(scores_N, dtype=np.float64)[ranked]
    place_R = _places(scores_R, codes_R, ties_R, keep, must_N[ranked])
    sizes_N = record_sizes(counting, len(text_N))
    order_R = _order(place_R, codes_R, ties_R, sizes_N[ranked], must_N[ranked])

    selected_N = kept_beside(counting, text_N)
    for part_N, room in find_rooms(budget, counting, text_N):
        taken = ranked[order_R[part_N[ranked[order_R]]]]
        selected_N[taken[np.cumsum(sizes_N[taken]) <= room]] = True
    rank_N = np.zeros(len(text_N), dtype=np.int64)
    rank_N[ranked] = place_R + 1
    return Cut(selected_N, rank_N, _reasons(selected_N, rank_N > 0, must_N, counting))


def most_taken(sizes_G: Sequence[int] | IntArray, num_total: int) -> IntArray:
    """The most that a cut to `num_total` records can take from each group."""
    sizes_G = np.asarray(sizes_G, dtype=np.int64)
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes_G.tolist()])
    last = np.partition(places, num_total - 1)[num_total - 1]
    most_G = np.floor(last * sizes_G + 0.5 + 1e-9).astype(np.int64)
    return np.minimum(np.maximum(most_G, 1), sizes_G)


def apportion(wanted: int, weights_G: NDArray[Any], sizes_G: IntArray) -> IntArray:
    """Shares in proportion to the weights, by largest remainders, at most a source's size.

    What a source does not have goes to the others, again in proportion. Worked example: weights
    5.625 and 2.5, 4 wanted: 2.77 and 1.23, so 3 and 1.
    """
    quota_G = np.zeros(len(sizes_G), dtype=np.int64)
    open_G = sizes_G > 0
    wanted = min(wanted, int(sizes_G.sum()))
    while True:
        left = wanted - int(quota_G.sum())
        weights = np.where(open_G, weights_G, 0.0)
        if not weights.any():
            weights = np.where(open_G, sizes_G, 0).astype(np.float64)
        shares_G = left * weights / max(weights.sum(), 1e-300)
        full_G = open_G & (shares_G > sizes_G)
        if not full_G.any():
            break
        quota_G[full_G], open_G = sizes_G[full_G], open_G & ~full_G
    quota_G = np.where(open_G, np.floor(shares_G), quota_G).astype(np.int64)
    missing = wanted - int(quota_G.sum())
    remainders_G = np.where(open_G & (quota_G < sizes_G), shares_G - np.floor(shares_G), -1.0)
    quota_G[np.argsort(-remainders_G, kind="stable")[:missing]] += 1
    return quota_G


def hash_uids(uids: Sequence[str], seed: int | None = None) -> NDArray[np.uint64]:
    """64 bits of BLAKE2b of each uid (and seed): an order that owes nothing to the position."""
    key = b"" if seed is None else str(seed).encode()
    digests = (hashlib.blake2b(uid.encode(), digest_size=8, key=key).digest() for uid in uids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _group_codes(groups_N: NDArray[Any] | None, text_N: BoolArray, ranked: IntArray) -> IntArray:
    """Numbers of the groups of ranked records; text-only ones are the last, by themselves."""
    codes_R = np.zeros(len(ranked), dtype=np.int64)
    images_R = ~text_N[ranked]
    if groups_N is not None:
        labels = np.asarray(groups_N)[ranked[images_R]]
        codes_R[images_R] = np.unique(labels, return_inverse=True)[1]
    codes_R[~images_R] = codes_R.max(initial=-1) + 1
    return codes_R


def _places(
    scores_R: FloatArray,
    codes_R: IntArray,
    ties_R: NDArray[np.uint64],
    keep: Keep,
    must_R: BoolArray,
) -> IntArray:
    """Each record's place, from 0, in the order of keeping inside its group."""
    if keep != "middle":
        return _place_by(-scores_R if keep == "high" else scores_R, codes_R, ties_R, must_R)
    place_R = _place_by(scores_R, codes_R, ties_R, np.zeros_like(must_R))
    has_score_R = np.isfinite(scores_R)
    middle_R = (np.bincount(codes_R, has_score_R)[codes_R] - 1) / 2 if len(codes_R) else codes_R
    distance_R = np.where(has_score_R, np.abs(place_R - middle_R), np.inf)
    return _place_by(distance_R, codes_R, ties_R, must_R)


def _place_by(
    values_R: FloatArray, codes_R: IntArray, ties_R: NDArray[np.uint64], must_R: BoolArray
) -> IntArray:
    order_R = np.lexsort((ties_R, values_R, ~must_R, codes_R))
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes_R))])[codes_R[order_R]]
    place_R = np.empty(len(values_R), dtype=np.int64)
    place_R[order_R] = np.arange(len(values_R)) - starts
    return place_R


def _order(
    place_R: IntArray,
    codes_R: IntArray,
    ties_R: NDArray[np.uint64],
    sizes_R: IntArray,
    must_R: BoolArray,
) -> IntArray:
    """The total order: places as shares of their groups, those that must be kept before all."""
    within_R = np.lexsort((place_R, codes_R))
    ends_R = np.cumsum(sizes_R[within_R])
    totals_G = np.bincount(codes_R, sizes_R)
    before_G = np.concatenate([[0], np.cumsum(totals_G)])
    share_R = np.empty(len(place_R))
    codes = codes_R[within_R]
    halfway = ends_R - before_G[codes] - sizes_R[within_R] / 2
    share_R[within_R] = halfway / np.maximum(totals_G[codes], 1)
    return np.lexsort((ties_R, share_R, ~must_R))


def _reasons(
    selected_N: BoolArray, ranked_N: BoolArray, must_N: BoolArray, counting: Counting
) -> list[Reason]:
    """Why each record was kept or not."""
    names: tuple[Reason, ...] = ("below_cut", "text_dropped", "selected", "text_only", "must_keep")
    asked_N = must_N & (ranked_N | (counting.text_only == "drop"))
    kept_N = np.where(asked_N, 4, np.where(ranked_N, 2, 3))
    code_N = np.where(selected_N, kept_N, np.where(ranked_N, 0, 1))
    return [names[code] for code in code_N.tolist()]
