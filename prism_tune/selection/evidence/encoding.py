"""Units as model inputs, decoded and preprocessed by worker processes ahead of the device.

Shape legend: L tokens of one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import Dataset

from prism_tune.config.sections import Config, Template
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.encoding.encoder import encode_text, image_token_id
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import Pool
from prism_tune.selection.evidence.prompts import Prompt, PromptKind, build_prompt


@dataclass(frozen=True)
class Encoded:
    """One unit's inputs (token inputs of shape L) and which positions are pooled.

    `instruction_L`: positions pooled by themselves, for "pair" features, or whose attention says
    what is pooled. An unusable image leaves
    `inputs` empty and says why in `fault` (reason, detail).
    """

    inputs: dict[str, torch.Tensor]
    pooled_L: torch.Tensor
    num_images: int = 0
    fault: tuple[str, str] | None = None
    instruction_L: torch.Tensor | None = None


class UnitDataset(Dataset[Encoded]):
    """Encodes one record of each unit.

    Args:
        pool: the records.
        records: the record of each unit.
        kind: how much of the record the model reads.
        template: how conversations are written.
        processor: the model's.
    """

    def __init__(
        self,
        pool: Pool,
        records: Sequence[int],
        kind: PromptKind,
        template: Template,
        processor: Any,
    ) -> None:
        self._pool = pool
        self._records = records
        self._kind: PromptKind = kind
        self._template: Template = template
        self._processor = processor

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> Encoded:
        """The unit's inputs."""
        index = self._records[number]
        try:
            images = [open_image(path) for path in self._pool.image_paths(index)]
            prompt = build_prompt(self._pool[index], self._kind, self._template, self._processor)
            return encode(prompt, images, self._processor)
        except (BadRecordError, ImageError) as error:
            return unusable(error)


class RecordDataset(Dataset[Encoded]):
    """Encodes whole records exactly as training sees them; the tokens that carry loss are pooled.

    Args:
        pool: the records.
        records: which of them, in this order.
        config: its template and `data.max_length` are read.
        processor: the model's.
    """

    def __init__(self, pool: Pool, records: Sequence[int], config: Config, processor: Any) -> None:
        self._pool = pool
        self._records = records
        self._examples = TuningDataset(
            pool, records, processor, config.model.template, config.data.max_length
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> Encoded:
        """The record's inputs, `labels` among them."""
        index = self._records[number]
        try:
            inputs = self.encode(index)
        except (BadRecordError, ImageError) as error:
            return unusable(error)
        return Encoded(inputs, inputs["labels"] != IGNORED_LABEL, len(self._pool.images(index)))

    def encode(self, index: int) -> dict[str, torch.Tensor]:
        """What the model reads of a record of the pool."""
        return self._examples.encode(index)


class ConversationDataset(RecordDataset):
    """Encodes whole records, all of whose tokens are pooled."""

    def __getitem__(self, number: int) -> Encoded:
        """The record's inputs."""
        unit = super().__getitem__(number)
        unit.inputs.pop("labels", None)
        return replace(unit, pooled_L=torch.ones_like(unit.pooled_L))


class InstructionDataset(RecordDataset):
    """Encodes whole records; image tokens are pooled, all others but the answers' look at them."""

    def __getitem__(self, number: int) -> Encoded:
        """The record's inputs."""
        unit = super().__getitem__(number)
        if unit.fault is not None:
            return unit
        is_answer_L = unit.inputs.pop("labels") != IGNORED_LABEL
        is_image_L = unit.inputs["input_ids"] == image_token_id(self._examples.processor)
        return replace(unit, pooled_L=is_image_L, instruction_L=~(is_image_L | is_answer_L))

    def encode(self, index: int) -> dict[str, torch.Tensor]:
        """As of any record; its labels are of all answers, for one not learnt asks nothing too."""
        record = self._pool[index]
        turns = tuple(replace(turn, has_loss=True) for turn in record.turns)
        images = [open_image(path) for path in self._pool.image_paths(index)]
        return self._examples.encode_record(replace(record, turns=turns), images)


def first_usable(units: UnitDataset | RecordDataset) -> Encoded | None:
    """The first with images, all of which can be read."""
    encoded = (units[number] for number in range(len(units)))
    return next((unit for unit in encoded if unit.fault is None and unit.num_images), None)


def encode(prompt: Prompt, images: Sequence[Any], processor: Any) -> Encoded:
    """One prompt with its images, and what of it is pooled."""
    inputs = encode_text(prompt.text, prompt.instruction_spans, images, processor)
    instruction_L = inputs.pop("labels") != IGNORED_LABEL
    pooled_L = inputs["input_ids"] == image_token_id(processor)
    if prompt.apart:
        return Encoded(inputs, pooled_L, len(images), instruction_L=instruction_L)
    return Encoded(inputs, pooled_L | instruction_L, len(images))


def unusable(error: BadRecordError | ImageError) -> Encoded:
    """Why a unit has no inputs."""
    return Encoded({}, torch.zeros(0, dtype=torch.bool), 0, (error.reason, str(error)))
