"""Kernel repulsion: kernel_prism's race in rounds, in which what is kept repels its like.

Ours; there is no paper. kernel_prism thins dense regions, but decides on each record alone: two
near-duplicates can both win. D^2 sampling (k-means++, Arthur and Vassilvitskii 2007,
https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf) cannot keep both, because it looks at
the picks so far; it takes a pass over the pool for each of them. One pass for a whole round of
picks says nearly the same.
Equation: with u_i, R_i and alpha as in `kernel_prism.py`, s of the group's N records kept and
k_c(x, y) = exp(-|x - y|^2 / 2 h_c) between records of one cell, 0 between others, each round keeps
the smallest

    -log(u_i) R_i^alpha (1 + max(0, C_i - F_i))^beta,    C_i = sum over the kept j of k_c(z_i, z_j),
    F_i = min(1/2, s/N sum over all j but i of k_c(z_i, z_j))

among those left; the score is the place in the order of keeping. C is what covers the record, F
what would on average if chance alone had kept s records, but at most half a record. Near a kept
copy C - F is about 1 and the rate falls 2^beta times. A record without neighbours has C = F = 0, as
ordinary records have C near F: without F they would all be repelled, and isolated noise would win
(measured: .16 of a subset in place of .03). Without the bound on F a hundred copies would keep
their share.
Cells are k-means clusters of about sqrt(N) rows, h_c is a quarter of the kernel's h or less
(`cells.py`): with a wide kernel one copy drowns in thousands of neighbours. (A sum of random
Fourier features stood here before; its error grows with what is kept, and beyond some 850 kept
records of a group copies were preferred.)
Rounds: 2 % of the group, then a quarter of what is kept so far; their sizes depend on the group's
size alone, so budgets are nested. Records of one image repel each other as others do. Within a
round nothing repels.
Cost: forward (PRISM's), then O(N d^2) for the components, O(N m K) for the densities and
O(N^1.5 K) for the cells and all rounds together.

Shape legend: M records to be scored, N of a group, P rows of a group, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.kernels.cells import CellKernel, find_cells, narrow_bandwidth
from prism_tune.selection.scorers.kernels.density import FloatArray, IntArray
from prism_tune.selection.scorers.kernels.kernel import KernelOptions, fit_kernel
from prism_tune.selection.scorers.kernels.kernel_prism import race
from prism_tune.selection.scorers.pick_order import rank_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids

_FIRST_FRACTION = 0.02
"""Of the records, in the first round."""
_GROWTH = 0.25
"""Of what is kept, in every other."""
MOST_FAIR = 0.5
"""The most cover that counts as a fair share, in records."""

_FiniteRate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class KernelRepulsionOptions(KernelOptions):
    """`selection.options` of kernel_repulsion."""

    alpha: _FiniteRate = Field(default=0.5, description="a number from 0")
    beta: _FiniteRate = Field(default=8.0, description="a number from 0")


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0, inside its group; the rest share the last place."""
    options = read_options(context.config, KernelRepulsionOptions)
    features_UD, pairs = context.paired_rows()
    kernel = fit_kernel(features_UD, pairs, hash_uids(context.uids), options)
    hashes_M = hash_uids(context.uids, context.config.seed)
    keys_M = race(kernel.densities(), hashes_M, options.alpha)
    wanted_G = context.most_taken(pairs.size_G)
    picks, bandwidths = [], []
    for group, wanted in zip(kernel.groups(), wanted_G.tolist(), strict=True):
        cells = find_cells(group.values_PK)
        narrow = narrow_bandwidth(group.values_PK, cells, kernel.bandwidth)
        near = CellKernel(group.values_PK, cells, narrow)
        at = pick_repelled(keys_M[group.records], group.row_N, near, wanted, options.beta)
        picks.append(group.records[at])
        bandwidths.append(narrow)
    diagnostics = {**kernel.diagnostics, "narrow_bandwidth": [min(bandwidths), max(bandwidths)]}
    return rank_picks(len(hashes_M), picks, diagnostics, mark_rows(kernel.reduced, pairs))


def pick_repelled(
    keys_N: FloatArray, row_N: IntArray, kernel: CellKernel, num_picks: int, beta: float
) -> IntArray:
    """The records kept first, in order; a smaller `num_picks` gives a beginning of a larger one's.

    Args:
        keys_N: logarithms of the race's keys; the smallest are kept. No two are equal.
        row_N: the row of each record in `kernel`.
        kernel: of the P rows.
        num_picks: how many records, at most N.
        beta: the strength of the repulsion; 0 is the race alone.
    """
    counts_P = np.bincount(row_N, minlength=len(kernel))
    around_P = kernel.cover(counts_P) - 1
    cover_P = np.zeros(len(kernel))
    left = np.arange(len(keys_N))
    picks: list[IntArray] = []
    for size in round_sizes(len(keys_N), num_picks):
        fair_P = np.minimum((len(keys_N) - len(left)) / len(keys_N) * around_P, MOST_FAIR)
        excess_P = np.maximum(cover_P - fair_P, 0.0)
        repelled = keys_N[left] + beta * np.log1p(excess_P)[row_N[left]]
        order = np.argsort(repelled, kind="stable")
        chosen = left[order[:size]]
        picks.append(chosen)
        left = np.sort(left[order[size:]])
        cover_P += kernel.cover(np.bincount(row_N[chosen], minlength=len(kernel)))
    return np.concatenate(picks)[:num_picks]


def round_sizes(num_records: int, num_picks: int) -> Iterator[int]:
    """The sizes of the rounds until there are enough; `num_picks` decides on their number alone."""
    num_kept, size = 0, max(1, round(_FIRST_FRACTION * num_records))
    while num_kept < num_picks:
        size = min(size, num_records - num_kept)
        yield size
        num_kept += size
        size = max(1, round(_GROWTH * num_kept))
