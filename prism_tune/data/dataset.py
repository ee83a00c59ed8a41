"""Records as training examples: token ids, labels and images, one record at a time.

In: a pool, the indices to tune on, the model's processor and template. Out: unpadded tensors with
the processor's own keys. Images are decoded when asked for and never kept.

Shape legend: N records, L tokens of one record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch.utils.data import Dataset

from prism_tune.chat.templates import check_end_token
from prism_tune.config.sections import Template
from prism_tune.data.conversation import render
from prism_tune.data.encoding.encoder import TOKEN_KEYS, encode_text, image_token_id
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import Pool
from prism_tune.errors import UserError
from prism_tune.schema import Record, Skipped

logger = logging.getLogger(__name__)


class TuningDataset(Dataset[dict[str, torch.Tensor]]):
    """Tokenised records with labels on the answers and their end tokens only.

    Args:
        pool: the records.
        indices: which of them, in this order.
        processor: the model's; it expands placeholders to image tokens.
        template: how conversations are written.
        max_length: in tokens, image tokens included. Longer records are cut behind their last
            image token; where that is not possible, or would leave no label, they are an error.

    Raises:
        UserError: the template does not fit the tokenizer, or the tokenizer gives no offsets.
    """

    def __init__(
        self,
        pool: Pool,
        indices: Sequence[int],
        processor: Any,
        template: Template,
        max_length: int,
    ) -> None:
        if not processor.tokenizer.is_fast:
            raise UserError(
                f"the tokenizer {type(processor.tokenizer).__name__} gives no character offsets, "
                "which the label masks need; convert the model's tokenizer to tokenizer.json"
            )
        check_end_token(template, processor)
        self.pool = pool
        self.indices = list(indices)
        self.processor = processor
        self.template: Template = template
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """The record's `input_ids`, `attention_mask`, `labels` (each of shape L) and image inputs.

        Raises:
            UserError: an image is unusable or the record too long; the message names the record.
        """
        index = self.indices[number]
        try:
            return self.encode(index)
        except (BadRecordError, ImageError) as error:
            raise UserError(f"{self.pool.describe(index)}: {error}") from error

    @cached_property
    def has_image_N(self) -> NDArray[np.bool_]:
        """Which examples have an image."""
        return ~self.pool.is_text_only_N[np.asarray(self.indices, dtype=np.int64)]

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        """Every example's length in tokens before cutting, image tokens included."""
        return estimate_lengths(self.pool, self.indices, self.processor, self.template)

    def encode(self, index: int) -> dict[str, torch.Tensor]:
        """As `__getitem__`, for a record of the pool by its index.

        Raises:
            BadRecordError: too long to be cut, or without label.
            ImageError: an image is unusable.
        """
        images = [open_image(path) for path in self.pool.image_paths(index)]
        return self.encode_record(self.pool[index], images)

    def encode_record(self, record: Record, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """As `encode`, for a record of any origin and its decoded images."""
        rendered = render(record.turns, self.template, self.processor, system=record.system)
        example = encode_text(rendered.text, rendered.loss_spans, images, self.processor)
        return self._cut(example)

    def _cut(self, example: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        length = len(example["input_ids"])
        if length <= self.max_length:
            return example
        is_image = example["input_ids"] == image_token_id(self.processor)
        num_needed = int(is_image.nonzero().max()) + 1 if is_image.any() else 0
        limit = f"data.max_length is {self.max_length}"
        if num_needed > self.max_length:
            raise BadRecordError(
                "over_long", f"{length} tokens, the last image's end at {num_needed}; {limit}"
            )
        if not (example["labels"][: self.max_length] != IGNORED_LABEL).any():
            raise BadRecordError(
                "no_label", f"{length} tokens, the answer begins beyond the limit; {limit}"
            )
        return {
            key: value[: self.max_length] if key in TOKEN_KEYS else value
            for key, value in example.items()
        }

    def find_unusable(self, numbers: Iterable[int]) -> dict[int, Skipped]:
        """Encode some examples; those that cannot be used, with the reason, by number."""
        bad: dict[int, Skipped] = {}
        for number in numbers:
            index = self.indices[number]
            try:
                self.encode(index)
            except (BadRecordError, ImageError) as error:
                detail = f"{self.pool.describe(index)}: {error}"
                names = (self.pool.uids[index], self.pool.ids[index])
                bad[number] = Skipped(*names, error.reason, detail)
        return bad

    def part(self, numbers: Sequence[int] | NDArray[np.int64]) -> TuningDataset:
        """Some of the examples; what is known of their lengths goes with them."""
        indices = [self.indices[number] for number in numbers]
        part = TuningDataset(self.pool, indices, self.processor, self.template, self.max_length)
        part.lengths_N = self.lengths_N[numbers]
        return part


def suspicious(lengths_N: NDArray[np.int64], max_length: int) -> list[int]:
    """Places of records that may be unusable: over long, or without length (`estimate_lengths`)."""
    places: list[int] = np.flatnonzero((lengths_N > max_length) | (lengths_N < 0)).tolist()
    return places


def check_label_share(examples: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """The mean share of masked tokens, certain to be plausible.

    There is no upper limit: an answer of one word has two labels, whatever the number of image
    tokens and the length of the question.

    Raises:
        UserError: no example has a label, or under 5 % of the tokens are without one on
            average, which means that template and tokenizer, or template and records, do not fit.
    """
    masked = [e["labels"] == IGNORED_LABEL for e in examples]
    without = sum(bool(mask_L.all()) for mask_L in masked)
    if without == len(masked):
        raise UserError(
            f"none of the {len(masked)} records looked at has a token with loss; "
            "see `prism-tune preview` and check model.template"
        )
    if without:
        logger.warning(
            "training: %d of the %d records looked at have no token with loss, so that nothing is "
            "learnt from them; see `prism-tune preview`",
            without,
            len(masked),
        )
    mean = sum(mask_L.double().mean().item() for mask_L in masked) / len(masked)
    if mean < 0.05:
        raise UserError(
            f"{mean:.1%} of the tokens carry no loss on average over {len(masked)} records; "
            "expected 5 % or more; see `prism-tune preview` and check model.template"
        )
    return mean
