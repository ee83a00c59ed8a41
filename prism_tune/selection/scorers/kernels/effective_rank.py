"""Quotas of sources by how many directions their features spread over: no model is trained.

Ours, in place of the gradients of TIVE's quotas and the spectra of DataTailor's.
Equation: with p the shares of a source's eigenvalues (of the covariance of its short rows, a row
counted as it occurs), its effective rank is exp(-sum p ln p) (Roy and Vetterli, "The effective
rank", EUSIPCO 2007), and its weight

    N^(1 - a) erank^a,  raised to 2 % of all weights together, or to half of an equal share.

a = 0 is each source's own size, a = 1 the ranks alone.

Shape legend: G groups (sources), P rows, K components.
"""

from __future__ import annotations

import numpy as np

from prism_tune.features.spectrum import effective_rank
from prism_tune.selection.scorers.kernels.density import FloatArray
from prism_tune.selection.scorers.kernels.short_rows import ShortRows

LEAST_SHARE = 0.02
"""Of all weights, to which the narrowest source's is raised; of more than 25 sources half of an
equal share, or all would be raised to one weight."""


def effective_ranks(rows: ShortRows) -> FloatArray:
    """Of every group; 1 where its rows are all equal, (G,)."""
    ranks = []
    for members in rows.pairs.members():
        values_BK = rows.values_PK[members] * np.sqrt(rows.pairs.count_P[members])[:, None]
        variances_K = np.maximum(np.linalg.eigvalsh(values_BK.T @ values_BK), 0.0)
        total = float(variances_K.sum())
        ranks.append(effective_rank(variances_K / total if total > 0 else variances_K))
    return np.array(ranks)


def weigh_groups(rows: ShortRows, power: float) -> FloatArray:
    """N^(1 - a) erank^a of every group, none below the least share of all, (G,)."""
    weights_G = rows.pairs.size_G ** (1 - power) * effective_ranks(rows) ** power
    least = min(LEAST_SHARE, 0.5 / len(weights_G))
    result: FloatArray = np.maximum(weights_G, least * weights_G.sum())
    return result
