"""How well a model already says a record's answers: mean loss and mean error of their tokens.

Of each record, over its answer tokens t (those that carry loss in training) with p_t the model's
next-token distribution: nll = mean -log p_t[y_t], el2n = mean |p_t - onehot(y_t)|.

Shape legend: B records, P predicted answer tokens of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import OUTPUT, Pooled
from prism_tune.selection.evidence.whole_model import WholeModelRunner

COLUMNS = ("nll", "el2n", "num_answer_tokens")


class AnswerLosses(WholeModelRunner):
    """Gives the `COLUMNS` of every record: one forward pass."""

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Encoded]) -> Pooled:
        found = self._predict(batch)
        nll_P = torch.empty(len(found.targets_P), device=found.targets_P.device)
        el2n_P = torch.empty_like(nll_P)
        for rows, logits in self._logits(found):
            targets = found.targets_P[rows, None]
            errors = torch.log_softmax(logits, dim=-1)
            nll_P[rows] = -errors.gather(1, targets)[:, 0]
            errors.exp_().scatter_add_(1, targets, -torch.ones_like(errors[:, :1]))
            el2n_P[rows] = torch.linalg.vector_norm(errors, dim=1)
        counts_B = torch.tensor(found.counts_B, dtype=torch.float32, device=nll_P.device)
        columns = [found.per_record(nll_P), found.per_record(el2n_P), counts_B]
        return {OUTPUT: torch.stack(columns, dim=1)}
