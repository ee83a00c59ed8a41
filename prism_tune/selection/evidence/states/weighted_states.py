"""One vector of a whole record: the mean of its last hidden states, later tokens counting more.

Records go in, text-only ones as they are; of each comes out sum_l l h_l / sum_l l, l = 1 ... L its
tokens' places and h their states behind the last decoder layer and the final norm. Under causal
attention a later token has read more of the record.

Shape legend: B records, L tokens of one record, D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from prism_tune.models.load import count_layers
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.states.conversations import (
    Inspection,
    Inspector,
    conversation_source,
)


class WeightedStates(Inspector):
    """Gives the vector of every record (a `Runner`).

    Args:
        model: as `load_shallow` gives it, with all its layers.
        processor: the model's.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        super().__init__(model, processor)
        self.width = self.hidden_size

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The weighted means, (B, D)."""
        kept: list[torch.Tensor] = []
        hook = self.final_norm.register_forward_hook(lambda _, inputs, output: kept.append(output))
        try:
            self.model(**self.place(batch), use_cache=False)
        finally:
            hook.remove()
        lengths = [len(unit.pooled_L) for unit in batch]
        return [torch.stack([weigh(h[:n]) for h, n in zip(kept[0], lengths, strict=True)])]


def weigh(states_LD: torch.Tensor) -> torch.Tensor:
    """The mean of the rows weighted by their places from 1, (D,), float32."""
    weights_L = torch.arange(1, len(states_LD) + 1, device=states_LD.device, dtype=torch.float32)
    return (weights_L / weights_L.sum()) @ states_LD.float()


WEIGHTED_STATES: EvidenceSource = conversation_source(
    "weighted_states",
    Inspection(
        depends=lambda config: {},
        num_layers=lambda config: count_layers(config.model),
        inspector=lambda config, model, processor: WeightedStates(model, processor),
    ),
)
"""Read by rds_plus."""
