"""Visual gain: how much less a record's answers surprise the model once it sees the images.

Ours, of what DICS (https://arxiv.org/abs/2608.30209, its VIC = exp(g)) and VisNec
(https://arxiv.org/abs/2603.01195) measure; neither's subset: DICS goes on to farthest points,
VisNec inside clusters of questions.
Equation: g = mean over the turns of (mean over a turn's answer tokens of -log p(y_t | text) less
the same given the images too). Keep the highest.
Blind, the record is written without its images: no token stands in their place. A text-only record
that is ranked has g = 0.
Cost: forward (the whole model, once seeing and once, some three times as fast, blind).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The gain of every record."""
    gain_M = measure_gain(context)
    known = gain_M[np.isfinite(gain_M)]
    counts = {
        "num_answer_tokens": int(context.measured["num_answer_tokens"].sum()),
        "mean_gain": float(known.mean()) if len(known) else None,
    }
    return ScoredRecords(gain_M, counts)


def measure_gain(context: ScoringContext) -> NDArray[np.float64]:
    """The gain of every record (M,), in nats; 0 without images, NaN where none was measured."""
    measured = context.measured
    gain_M = measured["blind_turn_nll"] - measured["turn_nll"]
    is_text_M = context.pool.is_text_only_N[context.records_M]
    return np.where(is_text_M, 0.0, gain_M)
