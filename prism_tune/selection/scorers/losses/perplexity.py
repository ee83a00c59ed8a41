"""Perplexity: how surprising a record's answers are to the target model.

Paper: Marion et al., "When Less is More: Investigating Data Pruning for Pretraining LLMs at Scale",
https://arxiv.org/abs/2309.04564, section 2.2, whose best subsets are from the middle.
Equation: score = 1/T sum_t -log p(y_t | image, everything before t), over the T answer tokens; the
logarithm of the perplexity, which orders records in the same way. Keep the middle.
Ours: the model is the target before instruction tuning (the paper's is another one); only tokens
that carry loss in training count, the answers' end tokens among them.
Cost: forward (the whole model, once per distinct record).
"""

from __future__ import annotations

from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext


def score(context: ScoringContext) -> ScoredRecords:
    """The mean negative log-likelihood of every record's answer tokens, in nats."""
    num_tokens = int(context.measured["num_answer_tokens"].sum())
    return ScoredRecords(context.measured["nll"], {"num_answer_tokens": num_tokens})
