"""EL2N: how wrong the target model's predictions of a record's answers are.

Paper: Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", https://arxiv.org/abs/2107.07075,
definition 2.2.
Equation: score = 1/T sum_t |softmax(z_t) - onehot(y_t)|_2, over the T answer tokens. Keep the
highest: the hard records.
Ours: the mean over tokens (the paper has one prediction an example); the target model before
instruction tuning instead of several models early in training.
Cost: forward (the whole model, once per distinct record; shared with `perplexity`).
"""

from __future__ import annotations

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The mean error norm of every record's answer tokens, from 0 to the root of 2."""
    num_tokens = int(context.measured["num_answer_tokens"].sum())
    return ScoredRecords(context.measured["el2n"], {"num_answer_tokens": num_tokens})
