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

from prism_tune.errors import UserError

Keep = Literal["low", "middle", "high"]
Unit = Literal["images", "rows", "tokens"]
TextOnly = Literal["keep", "own_source", "drop"]
Reason = Literal["selected", "must_keep", "text_only", "below_cut", "text_dropped"]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

UNITS: dict[Unit, str] = {"images": "image records", "rows": "records", "tokens": "tokens"}


@dataclass(frozen=True)
class Counting:
    """What a budget counts.

    Attributes:
        unit: image records; all rows, text-only ones included; or tokens of all rows.
        text_only: text-only records are kept beside what is cut, are a source of their own that is
            cut like any other, or are dropped.
        num_tokens_N: of each record, where tokens are counted.
        must_keep_N: records that come first whatever their score; None: none.
        key: of the config, for messages.
    """

    unit: Unit = "images"
    text_only: TextOnly = "keep"
    num_tokens_N: IntArray | None = None
    must_keep_N: BoolArray | None = None
    key: str = "selection.budget"


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
    must_N = _must(counting, len(text_N))
    ranked = np.flatnonzero(~text_N | (counting.text_only == "own_source"))
    codes_R = _group_codes(groups_N, text_N, ranked)
    ties_R = hash_uids([uids[i] for i in ranked.tolist()])
    scores_R = np.asarray(scores_N, dtype=np.float64)[ranked]
    place_R = _places(scores_R, codes_R, ties_R, keep, must_N[ranked])
    sizes_N = _sizes(counting, len(text_N))
    order_R = _order(place_R, codes_R, ties_R, sizes_N[ranked], must_N[ranked])

    selected_N = _beside(counting, text_N)
    for part_N, room in find_rooms(budget, counting, text_N):
        taken = ranked[order_R[part_N[ranked[order_R]]]]
        selected_N[taken[np.cumsum(sizes_N[taken]) <= room]] = True
    rank_N = np.zeros(len(text_N), dtype=np.int64)
    rank_N[ranked] = place_R + 1
    return Cut(selected_N, rank_N, _reasons(selected_N, rank_N > 0, must_N, counting))


def find_rooms(
    budget: float | int, counting: Counting, is_text_only_N: BoolArray
) -> list[tuple[BoolArray, int]]:
    """Which ranked records share a budget (N,), and how much of it there is for them.

    Raises:
        UserError: as `cut_subset`.
    """
    text_N, sizes_N = is_text_only_N, _sizes(counting, len(is_text_only_N))
    ranked_N = ~text_N | (counting.text_only == "own_source")
    if not ranked_N.any():
        return []
    if budget == 0:
        return _fit([(ranked_N, 0)], budget, counting, text_N)
    if counting.unit == "images":
        num_images = int((~text_N).sum())
        rooms = [(~text_N, num_kept(budget, num_images, "images", counting.key))]
        if counting.text_only == "own_source" and text_N.any():
            share = budget if isinstance(budget, float) else budget / max(num_images, budget)
            rooms.append((text_N, int(np.floor(share * text_N.sum() + 0.5))))
    else:
        asked = num_kept(budget, int(sizes_N.sum()), counting.unit, counting.key)
        rooms = [(ranked_N, _leave(asked, budget, counting, text_N))]
    return _fit(rooms, budget, counting, text_N)


def _fit(
    rooms: list[tuple[BoolArray, int]], budget: float | int, counting: Counting, text_N: BoolArray
) -> list[tuple[BoolArray, int]]:
    """The same, certain to have room for what must be kept."""
    sizes_N, must_N = _sizes(counting, len(text_N)), _must(counting, len(text_N))
    beside_N = _beside(counting, text_N)
    for part_N, room in rooms:
        needed = int(sizes_N[part_N & must_N & ~beside_N].sum())
        if needed > room:
            unit = UNITS[counting.unit]
            raise UserError(
                f"selection.must_keep: its records are {needed:,} {unit}, but "
                f"{counting.key}={budget} leaves room for {room:,}; raise it, or shorten the list"
            )
    return rooms


def _beside(counting: Counting, text_N: BoolArray) -> BoolArray:
    """Which text-only records are kept whatever the cut says."""
    if counting.text_only == "keep":
        return text_N.copy()
    if counting.text_only == "drop":
        return text_N & _must(counting, len(text_N))
    return np.zeros_like(text_N)


def num_kept(
    budget: float | int, total: int, unit: Unit = "images", key: str = "selection.budget"
) -> int:
    """What a budget keeps of a total: a count as it is, a fraction rounded half up.

    Raises:
        UserError: none, or more than there is.
    """
    if total == 0:
        return 0
    count = budget if isinstance(budget, int) else int(np.floor(budget * total + 0.5))
    if count > total:
        raise UserError(f"{key}: {budget} asked, but the pool has {total} {UNITS[unit]}")
    if count == 0:
        raise UserError(f"{key}: {budget} keeps none of the {total} {UNITS[unit]}; raise it")
    return count


def most_taken(sizes_G: Sequence[int] | IntArray, num_total: int) -> IntArray:
    """The most that a cut to `num_total` records can take from each group."""
    sizes_G = np.asarray(sizes_G, dtype=np.int64)
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes_G.tolist()])
    last = np.partition(places, num_total - 1)[num_total - 1]
    most_G = np.floor(last * sizes_G + 0.5 + 1e-9).astype(np.int64)
    return np.minimum(np.maximum(most_G, 1), sizes_G)


def hash_uids(uids: Sequence[str], seed: int | None = None) -> NDArray[np.uint64]:
    """64 bits of BLAKE2b of each uid (and seed): an order that owes nothing to the position."""
    key = b"" if seed is None else str(seed).encode()
    digests = (hashlib.blake2b(uid.encode(), digest_size=8, key=key).digest() for uid in uids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _must(counting: Counting, num_records: int) -> BoolArray:
    none = np.zeros(num_records, dtype=bool)
    return none if counting.must_keep_N is None else counting.must_keep_N


def _sizes(counting: Counting, num_records: int) -> IntArray:
    """What each record takes of the budget."""
    if counting.unit != "tokens":
        return np.ones(num_records, dtype=np.int64)
    assert counting.num_tokens_N is not None
    return counting.num_tokens_N


def _group_codes(groups_N: NDArray[Any] | None, text_N: BoolArray, ranked: IntArray) -> IntArray:
    """Numbers of the groups of ranked records; text-only ones are the last, by themselves."""
    codes_R = np.zeros(len(ranked), dtype=np.int64)
    images_R = ~text_N[ranked]
    if groups_N is not None:
        labels = np.asarray(groups_N)[ranked[images_R]]
        codes_R[images_R] = np.unique(labels, return_inverse=True)[1]
    codes_R[~images_R] = codes_R.max(initial=-1) + 1
    return codes_R


def _leave(asked: int, budget: float | int, counting: Counting, text_N: BoolArray) -> int:
    """What those kept beside the cut leave of a budget that counts them."""
    sizes_N, beside_N = _sizes(counting, len(text_N)), _beside(counting, text_N)
    spent, unit = int(sizes_N[beside_N].sum()), UNITS[counting.unit]
    if spent >= asked and not text_N.all():
        raise UserError(
            f"{counting.key}: {budget} are {asked:,} {unit}, and the text-only records that are "
            f"kept beside are {spent:,}: no image record would be kept; raise it, or choose "
            "selection.text_only=own_source or drop"
        )
    num_images = int(sizes_N[~text_N].sum())
    if counting.text_only == "drop" and asked - spent > num_images:
        raise UserError(
            f"{counting.key}: {budget} are {asked:,} {unit}, but without the text-only records "
            f"there are {num_images:,}; lower it"
        )
    return asked - spent


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
