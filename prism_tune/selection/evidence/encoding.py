"""Units as model inputs, decoded and preprocessed by worker processes ahead of the device.

Shape legend: L tokens of one unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from prism_tune.config.sections import Template
from prism_tune.data.conversation import Rendered, adds_special_tokens
from prism_tune.data.dataset import TOKEN_KEYS, image_token_id
from prism_tune.data.images import ImageError, open_image
from prism_tune.data.labels import IGNORED_LABEL, expand_spans, mask_labels
from prism_tune.data.records import Pool
from prism_tune.selection.evidence.prompts import Prompt, PromptKind, build_prompt


@dataclass(frozen=True)
class Encoded:
    """One unit's inputs (token inputs of shape L) and which positions are pooled.

    `instruction_L`: positions pooled by themselves, for "pair" features. An unusable image leaves
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
        except ImageError as error:
            return Encoded({}, torch.zeros(0, dtype=torch.bool), 0, (error.reason, str(error)))
        prompt = build_prompt(self._pool[index], self._kind, self._template, self._processor)
        return encode(prompt, images, self._processor)


def encode(prompt: Prompt, images: Sequence[Any], processor: Any) -> Encoded:
    """Run the model's own processor on one prompt with its images."""
    with_text = bool(prompt.instruction_spans)
    offsets = {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
    outputs = processor(
        images=list(images),
        text=[prompt.text],
        add_special_tokens=adds_special_tokens(prompt.text, processor.tokenizer),
        return_tensors="pt",
        **(offsets if with_text else {}),
    )
    inputs = {
        key: value[0] if key in TOKEN_KEYS else value
        for key, value in outputs.items()
        if isinstance(value, torch.Tensor) and key != "offset_mapping"
    }
    pooled_L = inputs["input_ids"] == image_token_id(processor)
    instruction_L = torch.zeros_like(pooled_L)
    if with_text:
        rendered = Rendered(prompt.text, prompt.instruction_spans)
        spans = expand_spans(rendered, outputs.get("text_replacement_offsets"), len(images))
        places = outputs["offset_mapping"][0].tolist()
        instruction_L = mask_labels(inputs["input_ids"], places, spans) != IGNORED_LABEL
    if prompt.apart:
        return Encoded(inputs, pooled_L, len(images), instruction_L=instruction_L)
    return Encoded(inputs, pooled_L | instruction_L, len(images))
