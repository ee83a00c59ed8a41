"""How much room a budget leaves, and for which records, before anything is ranked.

A budget and what it counts go in; the records that share it, and what there is for them, come out.
Here it is refused what cannot be met. `subset.py` says who takes the room.

Shape legend: N records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import UserError

Unit = Literal["images", "rows", "tokens"]
TextOnly = Literal["keep", "own_source", "drop", "rank"]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

UNITS: dict[Unit, str] = {"images": "image records", "rows": "records", "tokens": "tokens"}


@dataclass(frozen=True)
class Counting:
    """What a budget counts.

    Attributes:
        unit: image records; all rows, text-only ones included; or tokens of all rows.
        text_only: text-only records are kept beside what is cut, are a source of their own that is
            cut like any other, are dropped, or are ranked by the method and cut like all others;
            then none is marked as text-only here.
        num_tokens_N: of each record, where tokens are counted.
        must_keep_N: records that come first whatever their score; None: none.
        key: of the config, for messages.
    """

    unit: Unit = "images"
    text_only: TextOnly = "keep"
    num_tokens_N: IntArray | None = None
    must_keep_N: BoolArray | None = None
    key: str = "selection.budget"


def find_rooms(
    budget: float | int, counting: Counting, is_text_only_N: BoolArray
) -> list[tuple[BoolArray, int]]:
    """Which ranked records share a budget (N,), and how much of it there is for them.

    Raises:
        UserError: as `cut_subset`.
    """
    text_N, sizes_N = is_text_only_N, record_sizes(counting, len(is_text_only_N))
    ranked_N = ~text_N | (counting.text_only == "own_source")
    if not ranked_N.any():
        return []
    if budget == 0:
        return _fit([(ranked_N, 0)], budget, counting, text_N)
    if counting.unit == "images":
        rooms = [(~text_N, num_kept(budget, int((~text_N).sum()), "images", counting.key))]
        if counting.text_only == "own_source" and text_N.any():
            rooms.append((text_N, _text_room(budget, counting, text_N)))
    else:
        asked = num_kept(budget, int(sizes_N.sum()), counting.unit, counting.key)
        rooms = [(ranked_N, _leave(asked, budget, counting, text_N))]
    return _fit(rooms, budget, counting, text_N)


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


def must_keep(counting: Counting, num_records: int) -> BoolArray:
    """Which records come first whatever their score."""
    none = np.zeros(num_records, dtype=bool)
    return none if counting.must_keep_N is None else counting.must_keep_N


def record_sizes(counting: Counting, num_records: int) -> IntArray:
    """What each record takes of the budget."""
    if counting.unit != "tokens":
        return np.ones(num_records, dtype=np.int64)
    assert counting.num_tokens_N is not None
    return counting.num_tokens_N


def kept_beside(counting: Counting, text_N: BoolArray) -> BoolArray:
    """Which text-only records are kept whatever the cut says."""
    if counting.text_only == "keep":
        return text_N.copy()
    if counting.text_only == "drop":
        return text_N & must_keep(counting, len(text_N))
    return np.zeros_like(text_N)


def _fit(
    rooms: list[tuple[BoolArray, int]], budget: float | int, counting: Counting, text_N: BoolArray
) -> list[tuple[BoolArray, int]]:
    """The same, certain to have room for what must be kept."""
    sizes_N, must_N = record_sizes(counting, len(text_N)), must_keep(counting, len(text_N))
    beside_N = kept_beside(counting, text_N)
    for part_N, room in rooms:
        needed = int(sizes_N[part_N & must_N & ~beside_N].sum())
        if needed > room:
            is_text = counting.unit == "images" and bool(text_N[part_N].all())
            unit = "text-only records" if is_text else UNITS[counting.unit]
            raise UserError(
                f"selection.must_keep: its records are {needed:,} {unit}, but "
                f"{counting.key}={budget} leaves room for {room:,} of them; raise it, or shorten "
                "the list"
            )
    return rooms


def _text_room(budget: float | int, counting: Counting, text_N: BoolArray) -> int:
    """What a budget of image records leaves for text-only ones: the same share of them.

    Without an image record beside them there is no share to go by, and the budget is theirs.
    """
    num_text, num_images = int(text_N.sum()), int((~text_N).sum())
    if num_images == 0:
        return num_kept(budget, num_text, "rows", counting.key)
    share = budget if isinstance(budget, float) else budget / num_images
    return int(np.floor(share * num_text + 0.5))


def _leave(asked: int, budget: float | int, counting: Counting, text_N: BoolArray) -> int:
    """What those kept beside the cut leave of a budget that counts them."""
    sizes_N, beside_N = record_sizes(counting, len(text_N)), kept_beside(counting, text_N)
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
