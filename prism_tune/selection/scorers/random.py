"""Random: the baseline every method has to beat.

Reference: the Random row of https://arxiv.org/abs/2502.12119, table 1.
Equation: score = BLAKE2b(uid, seed) / 2^64, uniform in [0, 1). Being a function of the record and
the seed alone, the subset depends neither on the pool's order nor on its other records, and a
smaller budget is nested in a larger one.
Cost: none.
"""

from __future__ import annotations

import numpy as np

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.subset import hash_uids


def score(context: ScoringContext) -> ScoredRecords:
    """A uniform number per record, from its uid and the config's `seed`."""
    hashes_M = hash_uids(context.uids, context.config.seed)
    # The upper 53 bits: what a float64 holds exactly, so that no score rounds up to 1.
    return ScoredRecords((hashes_M >> np.uint64(11)).astype(np.float64) / 2.0**53, {})
