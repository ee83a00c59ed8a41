"""GraNd: how far a record alone would move the target model.

Paper: Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", https://arxiv.org/abs/2107.07075,
definition 2.1.
Equation: score = |gradient of L_i with respect to w|_2, L_i = 1/T sum_t -log p(y_t) over the T
answer tokens of record i. Keep the highest.
Ours: w is a chosen part of the parameters (option `parameters`, names in the decoder with `*`;
every parameter of its last two layers unless set), the gradient is exact for these; the target
model before instruction tuning instead of several models at initialisation.
Cost: backward (the whole model forward once per distinct record, the layers at the top back).
"""

from __future__ import annotations

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The gradient norm of every record's loss."""
    return ScoredRecords(context.measured["norm"], {})
