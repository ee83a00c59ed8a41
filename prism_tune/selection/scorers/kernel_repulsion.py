"""Kernel repulsion: kernel_prism's race in rounds, in which what is kept repels its like.

Ours; there is no paper. kernel_prism thins dense regions, but decides on each record alone: two
near-duplicates can both win. D^2 sampling (k-means++, Arthur and Vassilvitskii 2007,
https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf) cannot keep both, because it looks at
the picks so far; it takes a pass over the pool for each of them. One pass for a whole round of
picks, over random Fourier features, says nearly the same.
Equation: with k, u_i, R_i and alpha as in `kernel_prism.py`, and C_i = sum over the kept j of
k(x_i, x_j) = f_i . sum_kept f_j, each round keeps the smallest

    -log(u_i) R_i^alpha (1 + C_i)^beta

among those left; the score is the place in the order of keeping. Near a kept record C is about 1
and the rate falls 2^beta times; where a region has many kept ones, it falls with their number, so
that the repulsion goes on to tell regions apart when every record has a kept neighbour (1 - C, the
kernel's D^2, is then negative everywhere).
Rounds: 2 % of the group, then a quarter of what is kept so far; their sizes depend on the group's
size alone, so budgets are nested. Records of one image repel each other as others do.
Cost: forward (PRISM's), then O(N d^2) for the components and O(N D) for each round, some fifteen
for 30 % of any pool.

Shape legend: M records to be scored, N of a group, P pairs of a feature row and a group, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from prism_tune.selection.options import read_options
from prism_tune.selection.scorers.kernel import KernelOptions, fit_kernel
from prism_tune.selection.scorers.kernel_density import FloatArray, KernelFeatures
from prism_tune.selection.scorers.kernel_prism import race
from prism_tune.selection.scorers.pick_order import IntArray, rank_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids

_FIRST_FRACTION = 0.02
"""Of the records, in the first round."""
_GROWTH = 0.25
"""Of what is kept, in every other."""

_FiniteRate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class KernelRepulsionOptions(KernelOptions):
    """`selection.options` of kernel_repulsion."""

    alpha: _FiniteRate = Field(default=0.5, description="a number from 0")
    beta: _FiniteRate = Field(default=8.0, description="a number from 0")


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0, inside its group; the rest share the last place."""
    options = read_options(context.config, KernelRepulsionOptions)
    features_UD, pairs = context.paired_rows()
    hashes_M = hash_uids(context.uids, context.config.seed)
    kernel = fit_kernel(features_UD, pairs, hashes_M, options, context.config.seed)
    keys_M = race(kernel.densities(), hashes_M, options.alpha)
    wanted_G = context.most_taken(pairs.size_G)
    of_record_M = pairs.of_record_N
    assert of_record_M is not None
    picks = []
    for (members, features), wanted in zip(kernel.groups(), wanted_G.tolist(), strict=True):
        records, row_N = _records_of(members, of_record_M)
        at = pick_repelled(keys_M[records], row_N, features, wanted, options.beta)
        picks.append(records[at])
    return rank_picks(len(hashes_M), picks, kernel.diagnostics, mark_rows(kernel.reduced, pairs))


def _records_of(members: IntArray, of_record_M: IntArray) -> tuple[IntArray, IntArray]:
    """The records of these pairs, and the place of each one's pair among them."""
    place_P = np.full(int(of_record_M.max()) + 1, -1)
    place_P[members] = np.arange(len(members))
    records = np.flatnonzero(place_P[of_record_M] >= 0)
    return records, place_P[of_record_M[records]]


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
