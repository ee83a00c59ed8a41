"""Running batches of units on a device, with less at a time where its memory runs out.

Encoded units go in; one row of numbers per unit comes out. What is computed is the subclass's.

Shape legend: B units, D width.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prism_tune.data.collator import Collator
from prism_tune.errors import UserError
from prism_tune.models.families import parts
from prism_tune.selection.evidence.encoding import Encoded

logger = logging.getLogger(__name__)

Pooled = dict[int, torch.Tensor]

OUTPUT = -1
"""The "layer" of rows that are no hidden state but what a whole model makes of a unit."""


class BatchRunner(ABC):
    """Gives a row per unit and layer.

    Args:
        layers: which rows; numbers of hidden states, or `OUTPUT`.
        width: D of a row.
        tokens_per_batch: padded tokens of a batch; halved for good when memory runs out.
    """

    def __init__(self, layers: Sequence[int], width: int, tokens_per_batch: int) -> None:
        self.layers = tuple(layers)
        self.width = width
        self.tokens_per_batch = tokens_per_batch

    def fits(self, batch: Sequence[Encoded]) -> bool:
        """Whether a batch, padded, keeps to `tokens_per_batch`; one unit always does."""
        longest = max(len(unit.pooled_L) for unit in batch)
        return len(batch) == 1 or longest * len(batch) <= self.tokens_per_batch

    def pool(self, batch: Sequence[Encoded]) -> Pooled:
        """The rows, float32 (B, D) per layer, on the model's device.

        Raises:
            UserError: one unit alone does not fit into the device's memory.
        """
        try:
            return self._forward(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                num_tokens = len(batch[0].pooled_L)
                raise UserError(
                    f"out of memory with one record of {num_tokens} tokens; choose a smaller "
                    "selection.layer, selection.dtype=bfloat16 or a larger device"
                ) from error
        torch.cuda.empty_cache()
        self.tokens_per_batch = max(1, self.tokens_per_batch // 2)
        logger.warning(
            "out of memory with %d units: going on with selection.tokens_per_batch=%d",
            len(batch),
            self.tokens_per_batch,
        )
        half = len(batch) // 2
        first, second = self.pool(batch[:half]), self.pool(batch[half:])
        return {layer: torch.cat([first[layer], second[layer]]) for layer in self.layers}

    @abstractmethod
    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """What the batch takes, without attention scores."""

    @abstractmethod
    def _forward(self, batch: Sequence[Encoded]) -> Pooled:
        """The rows, or `torch.OutOfMemoryError`."""


class ModelRunner(BatchRunner):
    """A multimodal model (the whole of it, or its first layers) on batches.

    Args:
        model: with its parts where `models/families.py` says.
        processor: the model's.
        layers: which rows.
        width: D of a row.
        tokens_per_batch: padded tokens of a batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        layers: Sequence[int],
        width: int,
        tokens_per_batch: int,
    ) -> None:
        super().__init__(layers, width, tokens_per_batch)
        self._model = model
        self.dtype = model.dtype
        self._parts = parts(model)
        self._collate = Collator(processor, model.dtype)
        found = self._parts
        self._decoder_size = count_parameters(found.language_model.layers)
        self._vision_size = count_parameters(found.vision_tower) + count_parameters(found.projector)

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """2 x parameters x tokens, of the decoder layers and of the vision side."""
        num_tokens = sum(len(unit.pooled_L) for unit in batch)
        num_patches = sum(count_patches(unit, self._model) for unit in batch)
        return 2.0 * (self._decoder_size * num_tokens + self._vision_size * num_patches)

    def _place(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The collated batch on the model's device, without a mask where nothing is padded."""
        inputs = self._collate([unit.inputs for unit in batch])
        if bool(inputs["attention_mask"].all()):
            del inputs["attention_mask"]  # plain causal attention, the fast kernel
        device = self._model.device
        return {key: value.to(device, non_blocking=True) for key, value in inputs.items()}


def count_parameters(module: nn.Module | torch.Tensor) -> int:
    """How many numbers a module holds."""
    assert isinstance(module, nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())


def count_patches(unit: Encoded, model: PreTrainedModel) -> float:
    """Vision tokens of a unit: pixels by patch area; flattened patches count themselves."""
    pixels = unit.inputs["pixel_values"]
    patch = getattr(model.config.vision_config, "patch_size", None)
    if pixels.dim() <= 2 or patch is None:
        return float(len(pixels))
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return pixels.numel() / (3 * height * width)
