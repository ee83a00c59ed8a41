"""k-center: greedy farthest point.

Paper: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
Approach", https://arxiv.org/abs/1708.00489, algorithm 1; the greedy rule is Gonzalez's (1985).
Equation: next = argmax_i min_{s in S} |z_i - z_s|^2, z the centred, PCA-reduced, normalised
feature; the score is the place in the order of picking.
Ours: the first pick is drawn by the seed; features are PRISM's; inside each source with
`scope: per_source`; records that share a feature follow after all that differ.
Cost: forward (PRISM's), then O(picks N K) for K components: quadratic in the pool at a fixed
fraction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism_tune.selection.scorers.pick_order import score_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every record in the order of picking."""
    return score_picks(context, choose_farthest)


def choose_farthest(
    nearest_B: NDArray[np.float64], counts_B: NDArray[np.int64], rng: np.random.Generator
) -> int:
    """The row farthest from every pick; the first of equals."""
    return int(np.argmax(nearest_B))
