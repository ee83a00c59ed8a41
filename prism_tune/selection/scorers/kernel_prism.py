"""Kernel PRISM: PRISM's identity with an RBF kernel, kept by an exponential race.

Ours; there is no paper. It takes up https://arxiv.org/abs/2502.12119 (PRISM), whose R_i is the mean
*linear* kernel with the other records, hence a cut along one direction, and random Fourier features
(Rahimi and Recht, 2007, https://papers.nips.cc/paper/3182).
Equation: with z the centred, PCA-reduced, normalised feature of a record and
k(x, y) = exp(-|x - y|^2 / 2h) ~ f(x).f(y), f(x) = sqrt(2/D) [cos(W x), sin(W x)], W ~ N(0, 1/h),

    R_i = (f_i . sum_j f_j - |f_i|^2) / (N - 1)  ~  the kernel density at i without i itself.

A record is kept when its key -log(u_i) R_i^alpha is among the smallest, u_i uniform from a hash of
uid and seed: the exponential race of rates R_i^-alpha, so a dense region is thinned and not emptied
(alpha 1 flattens the density, inf keeps the lowest densities, without chance). 1 - u_i is the score
of `random`: with alpha 0 the subset is Random's of the same seed, record for record, and with any
other the two share what chance decides (common random numbers), so that their difference over a few
seeds is told from less noise. The key depends on the record and R alone: the subset owes nothing to
the pool's order or to shards, and budgets are nested. The score is log(-log u_i) + alpha log R_i,
the key's logarithm.
Option `tie_break: instruction`: the records of one image share R, and chance alone would decide
between them. Their draws u are dealt out instead by T_i, the same density of their *question*
features: the largest u goes to the most unusual question. Which images are kept, and how many
records of each, stays as the race has it.
Floor: the approximation can make R_i zero or negative where nothing is near; it counts as 0.001
there (alpha inf takes R as it is). The manifest says how often.
Cost: forward (PRISM's; with `tie_break` per record, not per image), then O(N d^2) for the
components of d-wide features (`reduction.py`) and O(N D) for the densities.

Shape legend: M records to be scored, U feature rows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.row_pairs import RowPairs
from prism_tune.selection.evidence.columns import Columns
from prism_tune.selection.options import read_options
from prism_tune.selection.scorers.kernel import KernelOptions, fit_kernel
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, change_selection
from prism_tune.selection.subset import hash_uids

MIN_DENSITY = 1e-3
"""The floor of R in the race."""


class KernelPrismOptions(KernelOptions):
    """`selection.options` of kernel_prism."""

    tie_break: Literal["none", "instruction"] = "none"
    alpha: Annotated[float, Field(ge=0)] = Field(default=1.0, description="a number from 0, or inf")


def adapt(config: Config) -> Config:
    """The config with the question's feature beside the image's, where ties are broken by it.

    Raises:
        ConfigError: no draws are made that could break a tie.
    """
    options = read_options(config, KernelPrismOptions)
    if options.tie_break == "none":
        return config
    if np.isinf(options.alpha):
        raise ConfigError(
            "selection.options of kernel_prism: `tie_break` deals out the race's draws, and with "
            "`alpha` inf there is no race; choose a number for alpha"
        )
    return change_selection(config, features="pair")


def score(context: ScoringContext) -> ScoredRecords:
    """The logarithm of every record's race key; R itself where alpha is inf."""
    options = read_options(context.config, KernelPrismOptions)
    features_UD, pairs = context.paired_rows()
    hashes_M = hash_uids(context.uids, context.config.seed)
    if options.tie_break == "none":
        densities_M, diagnostics = _measure_density(features_UD, pairs, hashes_M, context, options)
        return ScoredRecords(race(densities_M, hashes_M, options.alpha), diagnostics)
    visual_UD, words_UD = Columns.halves(features_UD)
    densities_M, diagnostics = _measure_density(visual_UD, pairs, hashes_M, context, options)
    terms_M, _ = _measure_density(words_UD, pairs, hashes_M, context, options)
    images_M = _number_images(context)
    # Equal but for rounding: the features of one image come out of prompts of several lengths.
    densities_M = (np.bincount(images_M, densities_M) / np.bincount(images_M))[images_M]
    draws_M = deal_draws(hashes_M, images_M, terms_M)
    return ScoredRecords(race(densities_M, draws_M, options.alpha), diagnostics)


def deal_draws(
    hashes_M: NDArray[np.uint64], images_M: NDArray[np.int64], terms_M: NDArray[np.float64]
) -> NDArray[np.uint64]:
    """The same hashes in other hands: an image's smallest goes to its record of lowest term.

    Of equal terms, the record that had the smaller hash keeps it. (A small hash is a large u.)
    """
    dealt_M = np.empty_like(hashes_M)
    by_term = np.lexsort((hashes_M, terms_M, images_M))
    dealt_M[by_term] = hashes_M[np.lexsort((hashes_M, images_M))]
    return dealt_M


def _number_images(context: ScoringContext) -> NDArray[np.int64]:
    """The same number for records of one group with the same images."""
    names = [context.pool.images(index) for index in context.records_M.tolist()]
    groups = [""] * len(names) if context.groups_M is None else context.groups_M.tolist()
    numbers: dict[Any, int] = {}
    return np.array(
        [
            numbers.setdefault((group, *images), len(numbers))
            for group, images in zip(groups, names, strict=True)
        ]
    )


def _measure_density(
    features_UD: RowBlocks,
    pairs: RowPairs,
    hashes_M: NDArray[np.uint64],
    context: ScoringContext,
    options: KernelPrismOptions,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """R of every record in its group, and what the manifest says of it."""
    kernel = fit_kernel(features_UD, pairs, hashes_M, options, context.config.seed)
    densities_M = kernel.densities()
    diagnostics = {
        **kernel.diagnostics,
        "mean_density": float(densities_M.mean()),
        "num_floored": int((densities_M < MIN_DENSITY).sum()),
    }
    return densities_M, diagnostics


def race(
    densities_M: NDArray[np.float64], hashes_M: NDArray[np.uint64], alpha: float
) -> NDArray[np.float64]:
    """Logarithms of the keys -log(u) R^alpha, 1 - u from 64-bit hashes; R where alpha is inf."""
    if np.isinf(alpha):
        return densities_M
    # The upper 52 bits and a half: what a float64 holds exactly, so that u is never 0 or 1.
    below_u_M = ((hashes_M >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    exponential_M = -np.log1p(-below_u_M)
    return np.log(exponential_M) + alpha * np.log(np.maximum(densities_M, MIN_DENSITY))
