"""What self-attention adds to the stream at some layers: COINCIDE's features.

Records go in; of each layer two blocks come out, the mean over the image tokens and the mean over
all tokens behind them, of the output of self-attention's last projection, before the residual; each
block passed through tanh and divided by its length, all of them by the root of their number, so
that a row is a unit vector: first the blocks of the images, then those of the text. A block
without token is zero; one that is not finite is NaN, so that its record is known as unreadable.

A block wider than `BLOCK_WIDTH` is projected on so many random directions (Gaussian, one matrix a
block, the same in every run) before it is divided by its length: the cosine of two rows of ten
blocks is off by some 0.04, much of it the same for all, for a thirtieth of the disk (665K records
of a 7B model: 3.4 GB in place of 109).

Shape legend: B records, L tokens, D width of the decoder, P of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from prism_tune.config.sections import Config, Index, Section
from prism_tune.errors import ConfigError
from prism_tune.models.load import count_layers
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.shallow import pool_positions
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.states.conversations import (
    Inspection,
    Inspector,
    SeenDataset,
    conversation_source,
)

BLOCK_WIDTH = 128
"""The most numbers of a block that are kept."""

_PUBLISHED_LAYERS = (3, 7, 11, 15, 19)
_PUBLISHED_DEPTH = 24


class AttentionOptions(Section):
    """The layers (from 0) in `selection.options`; null: those of the paper's model, by depth."""

    layers: tuple[Index, ...] | None = Field(
        default=None, description="a list of layer numbers from 0, or null"
    )


class AttentionOutputs(Inspector):
    """Gives the blocks of every record (a `Runner`).

    Args:
        model: as `load_shallow` gives it.
        processor: the model's.
        layers: whose self-attention.

    Raises:
        UserError: a layer without self-attention.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, layers: Sequence[int]) -> None:
        super().__init__(model, processor)
        key = "selection.options.layers"
        self._attentions = [self.find_attention(layer, key) for layer in layers]
        block = min(self.hidden_size, BLOCK_WIDTH)
        self.width = 2 * len(layers) * block
        self._projections = draw_projections(2 * len(layers), self.hidden_size)

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The blocks of each record, side by side, (B, 2 layers x P)."""
        inputs, device = self.place(batch), self.model.device
        masks = [
            pad_sequence([unit.pooled_L for unit in batch], batch_first=True).to(device),
            pad_sequence([_behind(unit) for unit in batch], batch_first=True).to(device),
        ]
        pooled: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])

        def keep(_: Any, inputs: Any, output: Any) -> None:
            hidden_BLD = output[0] if isinstance(output, tuple) else output
            for mask_BL, of_mask in zip(masks, pooled, strict=True):
                mean_BD = pool_positions(hidden_BLD, mask_BL, "mean")
                of_mask.append(torch.where(mask_BL.any(dim=1, keepdim=True), mean_BD, 0.0))

        with ExitStack() as hooks:
            for attention in self._attentions:
                hooks.callback(attention.register_forward_hook(keep).remove)
            self.model(**inputs, use_cache=False)
        found = zip([*pooled[0], *pooled[1]], self._projections, strict=True)
        blocks = [make_block(values_BD, matrix) for values_BD, matrix in found]
        return [torch.cat(blocks, dim=1) / len(blocks) ** 0.5]


def make_block(values_BD: torch.Tensor, matrix_DP: torch.Tensor | None) -> torch.Tensor:
    """tanh, projected, then length 1: (B, P); NaN where a row is not finite."""
    finite_B1 = values_BD.isfinite().all(dim=1, keepdim=True)
    squashed_BD = torch.where(finite_B1, values_BD.tanh(), torch.nan)
    if matrix_DP is not None:
        squashed_BD = squashed_BD @ matrix_DP.to(squashed_BD.device)
    return squashed_BD / squashed_BD.norm(dim=1, keepdim=True).clamp_min(1e-12)


def draw_projections(num_blocks: int, width: int) -> list[torch.Tensor | None]:
    """A matrix (D, P) for each block; None where nothing is projected."""
    if width <= BLOCK_WIDTH:
        return [None] * num_blocks
    generator = torch.Generator().manual_seed(0)
    scale = BLOCK_WIDTH**-0.5
    return [torch.randn(width, BLOCK_WIDTH, generator=generator) * scale for _ in range(num_blocks)]


def choose_layers(config: Config) -> tuple[int, ...]:
    """Those of the options; else the paper's five of 24, at the same share of the depth.

    Raises:
        ConfigError: a layer that the model does not have, or one twice.
    """
    depth = count_layers(config.model)
    asked = config.selection.options.get("layers")
    if asked is None:
        shares = ((layer + 1) / _PUBLISHED_DEPTH for layer in _PUBLISHED_LAYERS)
        return tuple(sorted({max(0, round(share * depth) - 1) for share in shares}))
    layers = tuple(asked)
    if not layers or len(set(layers)) < len(layers) or max(layers) >= depth:
        raise ConfigError(
            f"selection.options.layers: {list(layers)}: expected different layers of 0 to "
            f"{depth - 1}, which is what the model has"
        )
    return tuple(sorted(layers))


def _behind(unit: Encoded) -> torch.Tensor:
    assert unit.instruction_L is not None
    return unit.instruction_L


ATTENTION_OUTPUTS: EvidenceSource = conversation_source(
    "attention_outputs",
    Inspection(
        depends=lambda config: {"layers": choose_layers(config), "block width": BLOCK_WIDTH},
        num_layers=lambda config: max(choose_layers(config)) + 1,
        inspector=lambda config, model, processor: AttentionOutputs(
            model, processor, choose_layers(config)
        ),
        dataset=SeenDataset,
        version=2,  # 1 had zeros for what is not finite
    ),
)
"""Read by coincide."""
