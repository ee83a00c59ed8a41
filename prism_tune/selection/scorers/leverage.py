"""Leverage: how much a record alone decides of the directions its group spans.

Reference: row leverage scores, as in Mahoney, "Randomized Algorithms for Matrices and Data",
https://arxiv.org/abs/1104.5557, section 4.
Equation: h_i = x_i^T (X^T X + r t I)^-1 x_i, x the centred features in their leading K principal
components (with r = 0 the squared norm of row i of the top K left singular vectors), t the mean
eigenvalue of X^T X, r the option `ridge`. Keep the highest.
Ours: features are PRISM's, not normalised; K and the ridge; the components are the pool's, the
covariance each source's own with `scope: per_source` (a source with at most K records has leverage
1 - 1/n throughout, and a hash decides).
Cost: forward (PRISM's), then O(N d^2) by two passes for d-wide features (`reduction.py`), O(N K^2).

Shape legend: P pairs of a feature row and a group, K components.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count
from prism_tune.features.reduction import reduce_features
from prism_tune.selection.scorer_options import ScorerOptions, read_options
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows

_RELATIVE_RANK = 1e-10


class LeverageOptions(ScorerOptions):
    """`selection.options` of leverage; `num_components: null` keeps every component."""

    num_components: Count | None = Field(default=32, description="a positive number, or null")
    ridge: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def score(context: ScoringContext) -> ScoredRecords:
    """The leverage of every record in its group."""
    options = read_options(context.config, LeverageOptions)
    features_UD, pairs = context.paired_rows()
    reduced = reduce_features(
        features_UD, pairs, num_components=options.num_components, normalise=False
    )
    leverage_P = np.zeros(len(pairs.row_P))
    for members in pairs.members():
        leverage_P[members] = measure_leverage(
            reduced.values_PK[members], pairs.count_P[members], options.ridge
        )
    unranked = mark_rows(reduced, pairs)
    return ScoredRecords(pairs.spread(leverage_P), reduced.diagnostics, unranked)


def measure_leverage(
    values_PK: NDArray[np.float64], counts_P: NDArray[np.int64], ridge: float
) -> NDArray[np.float64]:
    """x^T (X^T X + r t I)^-1 x of each row, X having each row as often as `counts_P` says.

    Directions in which the rows do not vary are left out.
    """
    gram_KK = values_PK.T @ (values_PK * counts_P[:, None])
    eigenvalues_K, vectors_KK = np.linalg.eigh(gram_KK)
    largest = eigenvalues_K.max(initial=0.0)
    spanned = eigenvalues_K > _RELATIVE_RANK * largest
    if not spanned.any():
        return np.zeros(len(values_PK))
    damped_K = eigenvalues_K[spanned] + ridge * eigenvalues_K.mean()
    return ((values_PK @ vectors_KK[:, spanned]) ** 2) @ (1 / damped_K)
