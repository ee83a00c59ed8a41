"""less_heldout: the record that helps one task most, after LESS, with tasks out of the pool. Ours.

Reference: Xia et al., "LESS: Selecting Influential Data for Targeted Instruction Tuning",
https://arxiv.org/abs/2402.04333, section 4: score = max over the tasks of the mean over a task's
records v of cos(g_i, g_v), g the gradient with respect to all LoRA matrices. Keep the highest.
Ours: the tasks are records held out of each source, as in `icons_heldout` (LESS has a benchmark's
few-shot examples); plain gradients (LESS: Adam's, summed over four checkpoints of the warm-up);
sketches in place of a Rademacher projection to 8,192.
Cost: a warm-up, then forward and backward (the whole model, once per distinct record; the evidence
is shared with `icons_heldout`); O(N S T).
"""

from __future__ import annotations

from prism_tune.selection.scorers.gradients.heldout import measure_influences
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.unranked import Unranked


def score(context: ScoringContext) -> ScoredRecords:
    """The largest influence of every record."""
    found = measure_influences(context)
    unranked: Unranked = {"held_out": found.is_heldout_M, "no_score": found.is_unknown_M}
    return ScoredRecords(found.values_MT.max(axis=1), {"num_heldout": found.tasks}, unranked)
