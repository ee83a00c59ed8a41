"""k-means++: D^2 sampling.

Paper: Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007,
https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf, section 2.2.
Equation: P(next = i) = D_i^2 / sum_j D_j^2, D_i the distance of z_i to the nearest pick, z the
centred, PCA-reduced, normalised feature; the score is the place in the order of picking. No k-means
follows: the seeds are the subset.
Ours: features are PRISM's; inside each source with `scope: per_source`; records that share a
feature add up their chances, and follow after all that differ once one is picked.
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
    return score_picks(context, draw_far)


def draw_far(
    nearest_B: NDArray[np.float64], counts_B: NDArray[np.int64], rng: np.random.Generator
) -> int:
    """A row, with a chance that grows with its squared distance to the picks."""
    chances_B = np.cumsum(nearest_B * counts_B)
    drawn = int(np.searchsorted(chances_B, rng.random() * chances_B[-1], side="right"))
    last = int(np.flatnonzero(nearest_B)[-1])  # where rounding would draw beyond the end
    return min(drawn, last)
