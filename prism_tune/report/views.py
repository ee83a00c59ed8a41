"""The orders in which the gallery shows records, and which of them it is prepared for.

Scores and verdicts go in; rows of the pool come out. The page sorts by the same keys
(`assets/gallery_data.js`), so that what is prepared here is what it shows first.

Shape legend: N records of the pool, V records of a view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from prism_tune.results.records import RecordTable

ViewName = Literal["high", "low", "cut", "draw", "alone", "groups", "clusters"]
IntArray = NDArray[np.int64]

PAGE_RECORDS = 12
PREPARED_RECORDS = 2000
"""A pool of so many is prepared as a whole."""

_FIRST_RECORDS = 3 * PAGE_RECORDS
_MOST_SOURCES = 12


@dataclass(frozen=True)
class Cut:
    """What was kept of each group: a source, or the whole pool.

    `kept_G` and `size_G` count ranked records; `group_N` is each record's group.
    """

    kept_G: IntArray
    size_G: IntArray
    group_N: NDArray[np.int32]


def find_groups(records: RecordTable, *, per_source: bool) -> NDArray[np.int32]:
    """Each record's group, (N,): its source, or the whole pool."""
    return records.sources.codes_N if per_source else np.zeros(len(records), dtype=np.int32)


def find_cut(records: RecordTable, *, per_source: bool) -> Cut:
    """How far down each group's ranks the run kept."""
    group_N = find_groups(records, per_source=per_source)
    num_groups = int(group_N.max(initial=0)) + 1
    ranked_N = records.is_ranked_N
    return Cut(
        np.bincount(group_N[ranked_N & records.selected_N], minlength=num_groups),
        np.bincount(group_N[ranked_N], minlength=num_groups),
        group_N,
    )


def uid_numbers(records: RecordTable) -> NDArray[np.uint32]:
    """The first 32 bits of every uid, (N,): a hash of the content, so their order is a draw."""
    heads = pc.utf8_slice_codeunits(records.uids, 0, 8).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(heads)), dtype=">u4").astype(np.uint32)


def order_views(
    records: RecordTable, cut: Cut, numbers_N: NDArray[np.uint32]
) -> dict[ViewName, IntArray]:
    """Rows of the views by score, and of the draw, which alone holds more than the ranked records.

    First shown first.

    "cut": by the distance of a record's rank to the cut of its group, as a share of the group.
    Equal keys are ordered by the uid's first bits, then by the place in the pool.
    """
    ranked_V = np.flatnonzero(records.is_ranked_N)
    scores_V = records.score_N[ranked_V].astype(np.float32)
    group_V = cut.group_N[ranked_V]
    from_cut_V = np.abs(records.rank_N[ranked_V] - cut.kept_G[group_V] - 0.5) / cut.size_G[group_V]
    ties_V = numbers_N[ranked_V]
    return {
        "high": ranked_V[np.lexsort((ties_V, -scores_V))],
        "low": ranked_V[np.lexsort((ties_V, scores_V))],
        "cut": ranked_V[np.lexsort((ties_V, from_cut_V))],
        "draw": np.argsort(numbers_N, kind="stable"),
    }


def order_labelled(
    label_N: NDArray[np.int32], first_N: NDArray[np.bool_], numbers_N: NDArray[np.uint32]
) -> IntArray:
    """Rows that have a label (1, 2, ...), label by label; those of `first_N` first in each."""
    order_N = np.lexsort((numbers_N, ~first_N, label_N))
    rows: IntArray = order_N[label_N[order_N] > 0]
    return rows


def choose_prepared(records: RecordTable, orders: Mapping[ViewName, IntArray]) -> list[int]:
    """Rows to be shown at once: the first of each view, also of each source, kept and dropped.

    All of a pool of at most `PREPARED_RECORDS`.
    """
    if len(records) <= PREPARED_RECORDS:
        return list(range(len(records)))
    sizes = np.bincount(records.sources.codes_N, minlength=len(records.sources.names))
    largest = np.argsort(-sizes, kind="stable")[:_MOST_SOURCES].tolist()
    chosen: dict[int, None] = {}
    for order_V in orders.values():
        chosen.update(dict.fromkeys(order_V[:_FIRST_RECORDS].tolist()))
        for shown_V in _filters(records, order_V, largest):
            chosen.update(dict.fromkeys(order_V[shown_V][:PAGE_RECORDS].tolist()))
    return list(chosen)


def _filters(
    records: RecordTable, order_V: IntArray, sources: Iterable[int]
) -> Iterable[NDArray[np.bool_]]:
    kept_V = records.selected_N[order_V]
    yield kept_V
    yield ~kept_V
    codes_V = records.sources.codes_N[order_V]
    for source in sources:
        yield codes_V == source
