"""A race in rounds, in which what is kept repels what is like it.

Log-keys and short rows go in; the records come out in the order in which they are kept. After each
round the kernel of every record with all that is kept so far, C_i = sum_kept k(x_i, x_j), is known
by one pass over the random features (O(N F)), and a record's key is multiplied by (1 + C_i)^beta.
So a record beside a kept one has to wait until other regions have as many, as in D^2 sampling,
which takes a pass for every single pick. Within a round nothing repels; rounds grow in proportion
to what is kept, so that some fifteen reach 30 % of any pool.

Shape legend: N records, P rows, K components, M frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prism_tune.selection.scorers.kernel_density import KernelFeatures

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_FIRST_FRACTION = 0.02
"""Of the records, in the first round."""
_GROWTH = 0.25
"""Of what is kept, in every other."""


def pick_repelled(
    keys_N: FloatArray, row_N: IntArray, features: KernelFeatures, num_picks: int, beta: float
) -> IntArray:
    """The records kept first, in order; a smaller `num_picks` gives a beginning of a larger one's.

    Args:
        keys_N: logarithms of the race's keys; the smallest are kept. No two are equal.
        row_N: the row of each record in `features`.
        features: of the P rows.
        num_picks: how many records, at most N.
        beta: the strength of the repulsion; 0 is the race alone.
    """
    cover_P = np.zeros(len(features))
    left = np.arange(len(keys_N))
    picks: list[IntArray] = []
    for size in round_sizes(len(keys_N), num_picks):
        repelled = keys_N[left] + beta * np.log1p(np.maximum(cover_P, 0.0))[row_N[left]]
        order = np.argsort(repelled, kind="stable")
        chosen = left[order[:size]]
        picks.append(chosen)
        left = np.sort(left[order[size:]])
        kept_P = np.bincount(row_N[chosen], minlength=len(features))
        cover_P += features.compare(features.add_up(kept_P))
    return np.concatenate(picks)[:num_picks]


def round_sizes(num_records: int, num_picks: int) -> Iterator[int]:
    """The sizes of the rounds until there are enough; `num_picks` decides on their number alone."""
    num_kept, size = 0, max(1, round(_FIRST_FRACTION * num_records))
    while num_kept < num_picks:
        size = min(size, num_records - num_kept)
        yield size
        num_kept += size
        size = max(1, round(_GROWTH * num_kept))
