"""Cutting scored records to a budget.

Scores and a budget go in; which records are kept, their rank and the reason for each come out.

One total order decides: a record's place among the image records of its group (its source, or the
whole pool), divided by the group's size. The budget takes the first K of that order. So every
source keeps its share to the nearest record, the total is exact, and a smaller budget always lies
inside a larger one (this is Webster's apportionment, which never takes a seat back).

Worked example, sources A (4 records) and B (2), budget 0.5 -> K = 3. Places (rank + 1/2)/size:
A 1/8, 3/8, 5/8, 7/8; B 1/4, 3/4. The first three are A's first, B's first, A's second.

Shape legend: N records, M image records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import UserError

Keep = Literal["low", "middle", "high"]
Reason = Literal["selected", "text_only", "below_cut"]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """What was kept.

    `rank_N` counts from 1, in the order of keeping, inside the record's group; 0 for text-only
    records, which are not ranked and always kept.
    """

    selected_N: NDArray[np.bool_]
    rank_N: IntArray
    reasons: list[Reason]


def cut_subset(
    scores_N: NDArray[np.float64],
    *,
    uids: Sequence[str],
    is_text_only_N: NDArray[np.bool_],
    budget: float | int,
    keep: Keep,
    groups_N: NDArray[Any] | None = None,
) -> Cut:
    """Keep `budget` of the image records, and every text-only record.

    Args:
        scores_N: scores of all records; those of text-only records are ignored.
        uids: the records' uids; equal scores are ordered by a hash of these, never by position.
        is_text_only_N: which records have no image.
        budget: a fraction (float) or a number (int) of the *image* records.
        keep: the lowest, the most central or the highest scores of each group.
        groups_N: a label per record to cut inside of; None cuts over the whole pool.

    Raises:
        UserError: a budget that keeps none, or more than there are; scores that are not finite.
    """
    images_M = np.flatnonzero(~np.asarray(is_text_only_N))
    scores_M = np.asarray(scores_N, dtype=np.float64)[images_M]
    if not np.isfinite(scores_M).all():
        at = int(images_M[~np.isfinite(scores_M)][0])
        raise UserError(f"record {uids[at]}: its score {scores_N[at]} is not a finite number")
    codes_M = np.zeros(len(images_M), dtype=np.int64)
    if groups_N is not None:
        codes_M = np.unique(np.asarray(groups_N)[images_M], return_inverse=True)[1]
    ties_M = hash_uids([uids[i] for i in images_M.tolist()])
    place_M = _places(scores_M, codes_M, ties_M, keep)
    size_M = np.bincount(codes_M)[codes_M] if len(codes_M) else codes_M
    order_M = np.lexsort((ties_M, (place_M + 0.5) / np.maximum(size_M, 1)))
    kept = images_M[order_M[: num_kept(budget, len(images_M))]]

    selected_N = np.array(is_text_only_N, dtype=bool)
    selected_N[kept] = True
    rank_N = np.zeros(len(selected_N), dtype=np.int64)
    rank_N[images_M] = place_M + 1
    pairs = zip(np.asarray(is_text_only_N).tolist(), selected_N.tolist(), strict=True)
    return Cut(selected_N, rank_N, [_reason(text_only, kept) for text_only, kept in pairs])


def num_kept(budget: float | int, num_images: int) -> int:
    """How many image records a budget keeps: a count as it is, a fraction rounded half up.

    Raises:
        UserError: none, or more than there are.
    """
    if num_images == 0:
        return 0
    count = budget if isinstance(budget, int) else int(np.floor(budget * num_images + 0.5))
    if count > num_images:
        raise UserError(
            f"selection.budget: {budget} asked, but the pool has {num_images} image records"
        )
    if count == 0:
        raise UserError(
            f"selection.budget: {budget} keeps none of the {num_images} image records; raise it"
        )
    return count


def hash_uids(uids: Sequence[str], seed: int | None = None) -> NDArray[np.uint64]:
    """64 bits of BLAKE2b of each uid (and seed): an order that owes nothing to the position."""
    key = b"" if seed is None else str(seed).encode()
    digests = (hashlib.blake2b(uid.encode(), digest_size=8, key=key).digest() for uid in uids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _places(
    scores_M: NDArray[np.float64], codes_M: IntArray, ties_M: NDArray[np.uint64], keep: Keep
) -> IntArray:
    """Each record's place, from 0, in the order of keeping inside its group."""
    place_M = _place_by(-scores_M if keep == "high" else scores_M, codes_M, ties_M)
    if keep != "middle" or len(place_M) == 0:
        return place_M
    middle_M = (np.bincount(codes_M)[codes_M] - 1) / 2
    return _place_by(np.abs(place_M - middle_M), codes_M, ties_M)


def _place_by(
    values_M: NDArray[np.float64], codes_M: IntArray, ties_M: NDArray[np.uint64]
) -> IntArray:
    order_M = np.lexsort((ties_M, values_M, codes_M))
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes_M))])[codes_M[order_M]]
    place_M = np.empty(len(values_M), dtype=np.int64)
    place_M[order_M] = np.arange(len(values_M)) - starts
    return place_M


def _reason(is_text_only: bool, is_kept: bool) -> Reason:
    if is_text_only:
        return "text_only"
    return "selected" if is_kept else "below_cut"
