"""A whole model on batches of records: what its answers' tokens are predicted from.

Encoded records go in; the last hidden states at the positions that predict an answer token come
out, so that logits exist at these positions only.

Shape legend: B records, L tokens, P predicted answer tokens of a batch, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import OUTPUT, ModelRunner, count_parameters

_LOGITS_BYTES = 256 << 20  # of one block in float32: 1,700 tokens of a vocabulary of 32,000


@dataclass(frozen=True)
class Predictions:
    """Of a batch: hidden states (P, D), the tokens to come (P,), and how many each record has."""

    hidden_PD: torch.Tensor
    targets_P: torch.Tensor
    counts_B: list[int]

    def per_record(self, values_P: torch.Tensor) -> torch.Tensor:
        """The mean of each record's tokens, (B,)."""
        return torch.stack([part.mean() for part in values_P.split(self.counts_B)])


class WholeModelRunner(ModelRunner):
    """Runs a model with its head.

    Args:
        model: as `load_model` gives it.
        processor: the model's.
        width: numbers per record.
        tokens_per_batch: padded tokens of a batch.
    """

    def __init__(
        self, model: PreTrainedModel, processor: Any, width: int, tokens_per_batch: int
    ) -> None:
        super().__init__(model, processor, (OUTPUT,), width, tokens_per_batch)
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Linear)
        self._head = head

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """2 x parameters x tokens, of the decoder, the vision side and the head."""
        num_predicted = sum(int(unit.pooled_L.sum()) for unit in batch)
        return super().estimate_flops(batch) + 2.0 * count_parameters(self._head) * num_predicted

    def _predict(self, batch: Sequence[Encoded]) -> Predictions:
        inputs = self._place(batch)
        targets_BL = inputs.pop("labels")[:, 1:]
        outputs: Any = self._parts.base(**inputs, use_cache=False)
        predicts_BL = targets_BL != IGNORED_LABEL
        return Predictions(
            hidden_PD=outputs.last_hidden_state[:, :-1][predicts_BL],
            targets_P=targets_BL[predicts_BL],
            counts_B=predicts_BL.sum(dim=1).tolist(),
        )

    def _logits(self, found: Predictions) -> Iterator[tuple[slice, torch.Tensor]]:
        """Float32 logits (rows, V), a block of rows at a time, and which rows these are."""
        num_rows = max(1, _LOGITS_BYTES // (4 * self._head.out_features))
        for start in range(0, len(found.targets_P), num_rows):
            rows = slice(start, start + num_rows)
            yield rows, self._head(found.hidden_PD[rows]).float()
