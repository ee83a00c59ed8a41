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
Options, all off by default (docs/selectors.md): `gamma` divides a key by e^(gamma r), r the rank of
a predicted visual gain (`gain.py`); `text_weight` makes k and k_c kernels of images and texts
(`density.Rbf`); `deficit` multiplies rates by what a region lacks (`deficit.py`); `quota_power`
weighs sources by their effective rank (`effective_rank.py`).
Cost: forward (PRISM's; with gamma the whole model twice on a share of the records), then O(N d^2)
for the components, O(N m K) for the densities and
O(N^1.5 K) for the cells and all rounds together.

Shape legend: M records to be scored, N of a group, P rows of a group, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from prism_tune.config.sections import Config, Fraction
from prism_tune.selection.evidence.embeddings.text_sif import TEXT_SIF
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.sample import sample
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.evidence.without import BLIND_LOSSES
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.clusters.quotas import most_by_weight, place_by_weight
from prism_tune.selection.scorers.kernels.cells import CellKernel, find_cells, narrow_bandwidth
from prism_tune.selection.scorers.kernels.deficit import Deficit
from prism_tune.selection.scorers.kernels.density import FloatArray, IntArray
from prism_tune.selection.scorers.kernels.effective_rank import weigh_groups
from prism_tune.selection.scorers.kernels.gain import rank_gain
from prism_tune.selection.scorers.kernels.kernel import (
    Kernel,
    KernelOptions,
    fit_kernel,
    reads_rows,
    shorten_images,
    shorten_texts,
)
from prism_tune.selection.scorers.kernels.kernel_prism import MIN_DENSITY, race
from prism_tune.selection.scorers.pick_order import rank_picks
from prism_tune.selection.scorers.scorer import (
    ScoredRecords,
    ScoringContext,
    change_selection,
    mark_rows,
)
from prism_tune.selection.subset import hash_uids

_FIRST_FRACTION = 0.02
"""Of the records, in the first round."""
_GROWTH = 0.25
"""Of what is kept, in every other."""
MOST_FAIR = 0.5
"""The most cover that counts as a fair share, in records."""

_FiniteRate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class KernelRepulsionOptions(KernelOptions):
    """`selection.options` of kernel_repulsion.

    `gamma` weighs the rank of the predicted visual gain (`gain.py`), measured on `gain_share` of
    each source; `shuffle_gain` deals the ranks out anew inside each source: a control that knows
    nothing. `deficit` is d of `deficit.py`, `quota_power` a of `effective_rank.py`.
    """

    alpha: _FiniteRate = Field(default=0.5, description="a number from 0")
    beta: _FiniteRate = Field(default=8.0, description="a number from 0")
    gamma: _FiniteRate = Field(default=0.0, description="a number from 0")
    gain_share: Fraction = 0.03
    shuffle_gain: bool = False
    deficit: _FiniteRate = Field(default=0.0, description="a number from 0")
    quota_power: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="a number from 0 to 1"
    )


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The features; texts, and the losses of a share of the records, where the options ask."""
    options = read_options(config, KernelRepulsionOptions)
    if not options.gamma:
        return reads_rows(options)
    losses = (ANSWER_LOSSES, BLIND_LOSSES)
    return (FEATURES, TEXT_SIF, *(sample(s, _gain_share, by_seed=False) for s in losses))


def _gain_share(config: Config) -> float:
    return read_options(config, KernelRepulsionOptions).gain_share


def adapt(config: Config) -> Config:
    """Sources that have quotas are cut over the whole pool."""
    if not read_options(config, KernelRepulsionOptions).quota_power:
        return config
    return change_selection(config, scope="global")


@dataclass(frozen=True)
class Entries:
    """What every record enters the race with: logarithms of its key and of its rate, (M,)."""

    keys_M: FloatArray
    rates_M: FloatArray

    def favour(self, gains_M: FloatArray) -> Entries:
        """The same with rates that are e^gain times as high."""
        return Entries(self.keys_M - gains_M, self.rates_M + gains_M)


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0, inside its group; the rest share the last place.

    With quotas groups are sources, and a score is (place + 1/2) / the source's weight.

    Raises:
        UserError: a gain that cannot be predicted.
    """
    options = read_options(context.config, KernelRepulsionOptions)
    grouped = replace(context, groups_M=context.sources_M) if options.quota_power else context
    images, reduced = shorten_images(grouped, options)
    texts = shorten_texts(grouped, options, always=options.gamma > 0)
    kernel = fit_kernel(images, texts, hash_uids(context.uids), options)
    diagnostics = {**reduced.diagnostics, **kernel.diagnostics}
    densities_M = kernel.densities()
    entered = Entries(
        race(densities_M, hash_uids(context.uids, context.config.seed), options.alpha),
        -options.alpha * np.log(np.maximum(densities_M, MIN_DENSITY)),
    )
    if options.gamma:
        assert texts is not None
        ranks_M, of_gain = rank_gain(grouped, images, texts, shuffle=options.shuffle_gain)
        entered = entered.favour(options.gamma * ranks_M)
        diagnostics |= of_gain
    size_G, quota_G = images.pairs.size_G, None
    if options.quota_power:
        quota_G = weigh_groups(images, options.quota_power)
        total = context.num_taken()
        wanted_G = size_G if total is None else most_by_weight(total, quota_G, size_G)
        names = np.unique(np.asarray(grouped.groups_M)).tolist()
        shares = (quota_G / quota_G.sum()).tolist()
        diagnostics["quota_shares"] = dict(zip(names, shares, strict=True))
    else:
        wanted_G = context.most_taken(size_G)
    picks, narrow = _pick_groups(kernel, entered, wanted_G, options)
    diagnostics["narrow_bandwidth"] = narrow
    ranked = rank_picks(len(densities_M), picks, diagnostics, mark_rows(reduced, images.pairs))
    if quota_G is None:
        return ranked
    return replace(ranked, values_M=place_by_weight(len(densities_M), picks, quota_G))


def _pick_groups(
    kernel: Kernel, entered: Entries, wanted_G: IntArray, options: KernelRepulsionOptions
) -> tuple[list[IntArray], list[float]]:
    """The picks of every group, in order; the smallest and the largest narrow bandwidth."""
    picks, bandwidths = [], []
    for group, wanted in zip(kernel.groups(), wanted_G.tolist(), strict=True):
        images_PK = group.values_PK[:, : kernel.rbf.num_columns]
        cells = find_cells(images_PK)
        narrow = narrow_bandwidth(images_PK, cells, kernel.rbf.bandwidth)
        near = CellKernel(group.values_PK, cells, kernel.rbf.narrow(narrow))
        deficit = None
        if options.deficit:
            rates_N = entered.rates_M[group.records]
            deficit = Deficit(group, kernel, rates_N, options.deficit)
        keys_N = entered.keys_M[group.records]
        at = pick_repelled(keys_N, group.row_N, near, wanted, options.beta, deficit)
        picks.append(group.records[at])
        bandwidths.append(narrow)
    return picks, [min(bandwidths), max(bandwidths)]


def pick_repelled(
    keys_N: FloatArray,
    row_N: IntArray,
    kernel: CellKernel,
    num_picks: int,
    beta: float,
    deficit: Deficit | None = None,
) -> IntArray:
    """The records kept first, in order; a smaller `num_picks` gives a beginning of a larger one's.

    Args:
        keys_N: logarithms of the race's keys; the smallest are kept. No two are equal.
        row_N: the row of each record in `kernel`.
        kernel: of the P rows.
        num_picks: how many records, at most N.
        beta: the strength of the repulsion; 0 is the race alone.
        deficit: of the records' regions; None: rates stay as they are.
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
        if deficit is not None:
            repelled -= deficit.log_factors(size)[left]
        order = np.argsort(repelled, kind="stable")
        chosen = left[order[:size]]
        picks.append(chosen)
        left = np.sort(left[order[size:]])
        cover_P += kernel.cover(np.bincount(row_N[chosen], minlength=len(kernel)))
        if deficit is not None:
            deficit.add(chosen)
    return np.concatenate(picks)[:num_picks]


def round_sizes(num_records: int, num_picks: int) -> Iterator[int]:
    """The sizes of the rounds until there are enough; `num_picks` decides on their number alone."""
    num_kept, size = 0, max(1, round(_FIRST_FRACTION * num_records))
    while num_kept < num_picks:
        size = min(size, num_records - num_kept)
        yield size
        num_kept += size
        size = max(1, round(_GROWTH * num_kept))
