"""Examples of `TuningDataset` -> one batch with the model's own keys.

Token inputs are padded on the right, or laid end to end in one row; image inputs are concatenated.
A batch without image gets one dummy image, so that every process runs the vision tower and the
projector in every step.

Shape legend: B examples (1 packed row), L tokens of the longest (of the row).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from prism_tune.chat.templates import image_token
from prism_tune.data.encoding.encoder import TOKEN_KEYS, run_processor
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.errors import UserError

Example = Mapping[str, torch.Tensor]

_DUMMY_SIZE = (64, 64)


class Collator:
    """Makes padded batches; picklable, for worker processes.

    Why the dummy: where one process of several has a batch of text only, its projector receives no
    gradient and the collective operations of DDP and ZeRO no longer match, which hangs or crashes.
    The dummy's tokens stand behind the shortest text with attention mask 0 and label -100, so that
    neither the loss nor any other token sees them.

    Args:
        processor: the model's.
        dtype: of the floating point image inputs.
        with_dummy: whether a batch of text gets it; who computes no gradients has no need of it.
    """

    def __init__(
        self, processor: Any, dtype: torch.dtype = torch.float32, *, with_dummy: bool = True
    ) -> None:
        self._processor = processor
        self._dtype = dtype
        self._with_dummy = with_dummy

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Batch the examples.

        Returns:
            `input_ids`, `attention_mask`, `labels` (B, L), and the image inputs, whose rows are
            the batch's images (or patches) in order.
        """
        if self._with_dummy and not any("pixel_values" in example for example in examples):
            examples = self._append_dummy(examples)
        return {**self._pad_tokens(examples), **self._join_images(examples)}

    def _pad_tokens(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        length = max(len(example["input_ids"]) for example in examples)
        padding = {"input_ids": self._pad_token_id, "labels": IGNORED_LABEL}
        keys = [key for key in TOKEN_KEYS if key in examples[0]]
        return {
            key: torch.stack([_pad(e[key], length, padding.get(key, 0)) for e in examples])
            for key in keys
        }

    def _join_images(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        keys = {key: None for example in examples for key in example if key not in TOKEN_KEYS}
        return {
            key: self._cast(_concatenate([e[key] for e in examples if key in e])) for key in keys
        }

    def _append_dummy(self, examples: Sequence[Example]) -> list[Example]:
        lengths = [len(example["input_ids"]) for example in examples]
        shortest = lengths.index(min(lengths))
        with_dummy = dict(examples[shortest])
        for key, value in self._dummy.items():
            known = key in with_dummy and key in TOKEN_KEYS
            with_dummy[key] = torch.cat([with_dummy[key], value]) if known else value
        return [*examples[:shortest], with_dummy, *examples[shortest + 1 :]]

    def _cast(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self._dtype) if value.is_floating_point() else value

    @property
    def _pad_token_id(self) -> int:
        # The id is of no consequence behind attention mask 0, so eos serves where there is no pad.
        tokenizer = self._processor.tokenizer
        found = tokenizer.pad_token_id
        found = tokenizer.eos_token_id if found is None else found
        if found is None:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} names neither a padding token nor an "
                "end token; its tokenizer_config.json is missing or not whole: get it again"
            )
        return int(found)

    @cached_property
    def _dummy(self) -> dict[str, torch.Tensor]:
        """A black image and its tokens, as the processor makes them."""
        blank = Image.new("RGB", _DUMMY_SIZE)
        token = image_token(self._processor)
        inputs = run_processor(self._processor, [token], [[blank]], add_special_tokens=False)
        dummy = {key: value[0] if key in TOKEN_KEYS else value for key, value in inputs.items()}
        dummy["attention_mask"] = torch.zeros_like(dummy["input_ids"])
        dummy["labels"] = torch.full_like(dummy["input_ids"], IGNORED_LABEL)
        return dummy


class PackingCollator(Collator):
    """Lays the examples end to end in one row, without padding; the images follow in order.

    A record's positions begin at 0, which is how a model with `attention_mask=None` tells where one
    ends and the next begins (`models.packing`). Its first token has no label: nothing of the record
    is there to predict it from. The dummy of a row of text only is a record of its own at the end;
    `attention_mask` is 0 there, for those who count tokens.
    """

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """One row.

        Returns:
            `input_ids`, `attention_mask`, `labels`, `position_ids` (1, L), and the image inputs.
        """
        if not any("pixel_values" in example for example in examples):
            examples = [*examples, self._dummy]
        return {**self._join_tokens(examples), **self._join_images(examples)}

    def _join_tokens(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        lengths = [len(example["input_ids"]) for example in examples]
        row = {
            key: torch.cat([example[key] for example in examples])[None]
            for key in TOKEN_KEYS
            if key in examples[0]
        }
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        labels = row["labels"].masked_fill(positions == 0, IGNORED_LABEL)
        return {**row, "labels": labels, "position_ids": positions}


def first_tokens(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Where records begin, B x L: in column 0, or where a packed row's positions begin anew."""
    ids_BL = batch["input_ids"]
    positions_BL = batch.get("position_ids")
    if positions_BL is None:
        positions_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand(ids_BL.shape)
    return positions_BL == 0


def _pad(values: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return functional.pad(values, (0, length - len(values)), value=value)


def _concatenate(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along the first axis; the others (tiles of an image) are zero-padded to the largest."""
    shape = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [(0, size - own) for size, own in zip(shape, tensor.shape[1:], strict=True)]
        padded.append(functional.pad(tensor, [n for pair in reversed(missing) for n in pair]))
    return torch.cat(padded)
