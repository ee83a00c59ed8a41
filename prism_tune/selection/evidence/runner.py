"""Running batches of units on a device, with less at a time where its memory runs out.

Encoded units go in; one row of numbers per unit comes out, for one matrix or several. What is
computed is the runner's.

Shape legend: B units, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from prism_tune.data.collator import Collator
from prism_tune.errors import UserError
from prism_tune.models.flops import count_patches
from prism_tune.selection.evidence.encoding import Encoded

logger = logging.getLogger(__name__)

Rows = list[torch.Tensor]
"""float32 (B, D) for each matrix, on the device."""


class Runner(Protocol):
    """What computes rows; `width` is their D, `dtype` what it reads images in."""

    @property
    def width(self) -> int:
        """D."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the image inputs."""

    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """The rows, or `torch.OutOfMemoryError`."""

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """What the batch takes (`models/flops.py`)."""


def count_seen(batch: Sequence[Encoded], model: PreTrainedModel) -> float:
    """Vision tokens of a batch."""
    return sum(
        count_patches(unit.inputs["pixel_values"], model.config)
        for unit in batch
        if "pixel_values" in unit.inputs
    )


class Batches:
    """How many units go together.

    Args:
        tokens_per_batch: padded tokens of a batch; halved for good when memory runs out.
    """

    def __init__(self, tokens_per_batch: int) -> None:
        self.tokens_per_batch = tokens_per_batch

    def fits(self, num_units: int, longest: int) -> bool:
        """Whether units, padded to the longest, keep to `tokens_per_batch`; one always does."""
        return num_units == 1 or longest * num_units <= self.tokens_per_batch

    def run(self, run_batch: Callable[[Sequence[Encoded]], Rows], batch: Sequence[Encoded]) -> Rows:
        """The rows of a batch, in halves where it does not fit into the memory.

        Raises:
            UserError: one unit alone does not fit.
        """
        try:
            return run_batch(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                num_tokens = len(batch[0].pooled_L)
                raise UserError(
                    f"out of memory with one record of {num_tokens} tokens; choose "
                    "selection.dtype=bfloat16, a larger device, or, where features of one layer "
                    "are read, a smaller selection.layer"
                ) from error
        torch.cuda.empty_cache()
        self.tokens_per_batch = max(1, self.tokens_per_batch // 2)
        logger.warning(
            "out of memory with %d units: going on with selection.tokens_per_batch=%d",
            len(batch),
            self.tokens_per_batch,
        )
        half = len(batch) // 2
        parts = zip(
            self.run(run_batch, batch[:half]), self.run(run_batch, batch[half:]), strict=True
        )
        return [torch.cat(part) for part in parts]


def group(units: Iterator[Encoded], batches: Batches) -> Iterator[list[Encoded]]:
    """Batches of consecutive units."""
    batch: list[Encoded] = []
    longest = 0
    for unit in units:
        longest = max(longest, len(unit.pooled_L))
        if batch and not batches.fits(len(batch) + 1, longest):
            yield batch
            batch, longest = [], len(unit.pooled_L)
        batch.append(unit)
    if batch:
        yield batch


def place_batch(
    batch: Sequence[Encoded], collate: Collator, model: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """The collated batch on the model's device, without a mask where nothing is padded."""
    inputs: dict[str, Any] = collate([unit.inputs for unit in batch])
    if bool(inputs["attention_mask"].all()):
        del inputs["attention_mask"]  # plain causal attention, the fast kernel
    if model.device.type == "cuda":  # else the copy waits for all that the GPU still has to do
        inputs = {key: value.pin_memory() for key, value in inputs.items()}
    return {key: value.to(model.device, non_blocking=True) for key, value in inputs.items()}
