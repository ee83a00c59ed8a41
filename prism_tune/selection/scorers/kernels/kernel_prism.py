"""Kernel PRISM: PRISM's mean similarity with an RBF kernel, kept by an exponential race.

Ours; there is no paper. It takes up https://arxiv.org/abs/2502.12119 (PRISM), whose R_i is the mean
*linear* kernel with the other records, hence a cut along one direction.
Equation: with z the centred, PCA-reduced, normalised feature of a record and
k(x, y) = exp(-|x - y|^2 / 2h),

    R_i = mean of k(z_i, z_j) over the other records j of the group,

the kernel density at i without i itself. Records of i's own row are counted; the others are
estimated by m landmarks, the records with the smallest hashes of their uids: exact in groups of up
to m records. (1,024 random Fourier features stood here before: over 1,000 images of the quickstart
their densities ranked .51 to .57 with the exact ones.)

A record is kept when its key -log(u_i) R_i^alpha is among the smallest, u_i uniform from a hash of
uid and seed: the exponential race of rates R_i^-alpha, so a dense region is thinned and not emptied
(alpha 1 flattens the density, inf keeps the lowest densities, without chance). 1 - u_i is the score
of `random`: with alpha 0 the subset is Random's of the same seed, record for record, and with any
other the two share what chance decides (common random numbers), so that their difference over a few
seeds is told from less noise. The key depends on the record and R alone: the subset owes nothing to
the pool's order or to shards, and budgets are nested. The score is log(-log u_i) + alpha log R_i,
the key's logarithm.
Floor: R may be next to nothing where a narrow kernel has no neighbour; it counts as 0.001 there
(alpha inf takes R as it is). The manifest says how often.
Cost: forward (PRISM's), then O(N d^2) for the components of d-wide features (`reduction.py`) and
O(N m K) for the densities.

Shape legend: M records to be scored.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.kernels.kernel import (
    KernelOptions,
    fit_kernel,
    reads_rows,
    shorten_images,
    shorten_texts,
)
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids

MIN_DENSITY = 1e-3
"""The floor of R in the race."""


class KernelPrismOptions(KernelOptions):
    """`selection.options` of kernel_prism."""

    alpha: Annotated[float, Field(ge=0)] = Field(default=1.0, description="a number from 0, or inf")


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The features, and texts where they weigh anything."""
    return reads_rows(read_options(config, KernelPrismOptions))


def score(context: ScoringContext) -> ScoredRecords:
    """The logarithm of every record's race key; R itself where alpha is inf."""
    options = read_options(context.config, KernelPrismOptions)
    images, reduced = shorten_images(context, options)
    kernel = fit_kernel(images, shorten_texts(context, options), hash_uids(context.uids), options)
    densities_M = kernel.densities()
    diagnostics = {
        **reduced.diagnostics,
        **kernel.diagnostics,
        "mean_density": float(densities_M.mean()),
        "num_floored": int((densities_M < MIN_DENSITY).sum()),
    }
    hashes_M = hash_uids(context.uids, context.config.seed)
    unranked = mark_rows(reduced, images.pairs)
    return ScoredRecords(race(densities_M, hashes_M, options.alpha), diagnostics, unranked)


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
