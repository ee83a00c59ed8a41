"""Which records share a feature row, and which rows are scored together.

The row and the group of every record go in; the distinct (row, group) pairs come out.

Shape legend: N records, P pairs of a row and a group, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RowPairs:
    """The distinct (feature row, group) pairs in the order of the rows, with how often each occurs.

    Worked example: records with rows [0, 1, 1] and groups [a, a, b] make the pairs (0, a), (1, a),
    (1, b); row 1 is centred once for a and once for b. `of_record_N` is each record's pair (None:
    record n has pair n).
    """

    row_P: IntArray
    group_P: IntArray
    count_P: IntArray
    size_G: IntArray
    of_record_N: IntArray | None

    def members(self) -> Iterator[IntArray]:
        """The pairs of each group, group by group."""
        yield from split_by(self.group_P, num_groups=len(self.size_G))

    def spread(self, values_P: NDArray[Any]) -> NDArray[Any]:
        """Each record's value out of each pair's."""
        return values_P if self.of_record_N is None else values_P[self.of_record_N]


def pair_rows(
    num_rows: int, groups_N: NDArray[Any] | None, inverse_N: NDArray[Any] | None
) -> RowPairs:
    """Pair up rows and groups.

    Args:
        num_rows: how many feature rows there are.
        groups_N: a label per record; None: one group.
        inverse_N: the row of each record; None: record n has row n.
    """
    num_records = num_rows if inverse_N is None else len(inverse_N)
    codes_N = np.zeros(num_records, dtype=np.int64)
    if groups_N is not None:
        codes_N = np.unique(np.asarray(groups_N), return_inverse=True)[1].astype(np.int64)
    size_G = np.bincount(codes_N)
    if inverse_N is None:
        ones = np.ones(num_records, dtype=np.int64)
        return RowPairs(np.arange(num_records), codes_N, ones, size_G, None)
    keys_N = np.asarray(inverse_N, dtype=np.int64) * len(size_G) + codes_N
    keys_P, of_record_N, count_P = np.unique(keys_N, return_inverse=True, return_counts=True)
    return RowPairs(keys_P // len(size_G), keys_P % len(size_G), count_P, size_G, of_record_N)


def split_by(
    codes_N: NDArray[np.integer], order: IntArray | None = None, *, num_groups: int | None = None
) -> list[IntArray]:
    """The places of each code, code by code, in the order that they are given in.

    Args:
        codes_N: a number for each place.
        order: which places, in which order; None: all as they stand.
        num_groups: codes run from 0 to here, and those of no place have an empty part; None: only
            codes that some place has.
    """
    given = np.arange(len(codes_N)) if order is None else order
    by_code = given[np.argsort(codes_N[given], kind="stable")]
    codes = codes_N[by_code]
    if num_groups is None:
        return np.split(by_code, np.flatnonzero(np.diff(codes)) + 1)
    return np.split(by_code, np.cumsum(np.bincount(codes, minlength=num_groups))[:-1])
