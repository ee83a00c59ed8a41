"""How spread a record's last hidden states are, and where its last token stands: DataTailor's.

Records go in, text-only ones as they are; of each, with s the singular values of the matrix of all
its tokens' states behind the last decoder layer, before the final norm, and p = s / sum s, come out
-sum p ln p, the largest p, and the last token's state. The singular values are the roots of the
eigenvalues of the smaller Gram matrix, in float64.

Shape legend: B records, L tokens of one record, D width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from prism_tune.models.flops import estimate_flops
from prism_tune.models.load import count_layers
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.states.conversations import (
    Inspection,
    Inspector,
    conversation_source,
)


class StateSpectra(Inspector):
    """Gives the numbers of every record (a `Runner`).

    Args:
        model: as `load_shallow` gives it, with all its layers.
        processor: the model's.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        super().__init__(model, processor)
        self.width = 2 + self.hidden_size

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """The forward pass, and the Gram matrices."""
        lengths = [len(unit.pooled_L) for unit in batch]
        products = estimate_flops(*((self.hidden_size * length, length) for length in lengths))
        return super().estimate_flops(batch) + products

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """Entropy, largest share and last state, (B, 2 + D)."""
        kept: list[torch.Tensor] = []
        hook = self.final_norm.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            self.model(**self.place(batch), use_cache=False)
        finally:
            hook.remove()
        rows = []
        for hidden_LD, unit in zip(kept[0], batch, strict=True):
            states_LD = hidden_LD[: len(unit.pooled_L)]
            rows.append(torch.cat([measure_spectrum(states_LD), states_LD[-1].float()]))
        return [torch.stack(rows)]


def measure_spectrum(states_LD: torch.Tensor) -> torch.Tensor:
    """-sum p ln p and max p, (2,), float32; NaN where a state is not finite, or all are zero."""
    exact_LD = states_LD.cpu() if states_LD.device.type == "mps" else states_LD
    exact_LD = exact_LD.double()
    is_long = exact_LD.shape[0] > exact_LD.shape[1]
    gram = exact_LD.T @ exact_LD if is_long else exact_LD @ exact_LD.T
    if not gram.isfinite().all() or not gram.any():
        return torch.full((2,), torch.nan, device=states_LD.device)
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum()
    entropy = -torch.xlogy(shares, shares).sum()
    return torch.stack([entropy, shares.max()]).float().to(states_LD.device)


STATE_SPECTRA: EvidenceSource = conversation_source(
    "state_spectra",
    Inspection(
        depends=lambda config: {},
        num_layers=lambda config: count_layers(config.model),
        inspector=lambda config, model, processor: StateSpectra(model, processor),
    ),
)
"""Read by datatailor."""
