"""Answer losses of records of which the model does not see all: what the rest of it was worth.

Records go in as training sees them, but without their images, or without their questions' words;
the numbers of `whole_model.AnswerLosses` come out, over the same answer tokens.

Without images, a record is written as if it had none: no token stands in their place, so that a
pass is as short as the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset

from prism_tune.config.sections import Config
from prism_tune.data.conversation import render
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.encoding.encoder import TOKEN_KEYS, encode_text
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import Pool
from prism_tune.schema import IMAGE_PLACEHOLDER, Turn
from prism_tune.selection.evidence.encoding import Encoded, unusable
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import (
    LOSS_COLUMNS,
    build_answer_losses,
    whole_model_source,
)


class PartDataset(Dataset[Encoded]):
    """Encodes records without a part of their questions.

    Args:
        pool: the records.
        records: which of them, in this order.
        config: its template and `data.max_length` are read.
        processor: the model's.
        strip: a question's text without the part; images go with their placeholders.
    """

    def __init__(
        self,
        pool: Pool,
        records: Sequence[int],
        config: Config,
        processor: Any,
        strip: Callable[[str], str],
    ) -> None:
        template, limit = config.model.template, config.data.max_length
        self._whole = TuningDataset(pool, records, processor, template, limit)
        self._strip = strip
        self._is_cut = estimate_lengths(pool, records, processor, template) > limit

    def __len__(self) -> int:
        return len(self._whole)

    def __getitem__(self, number: int) -> Encoded:
        """The record's inputs, `labels` among them."""
        pool, index = self._whole.pool, self._whole.indices[number]
        record, processor = pool[index], self._whole.processor
        turns = [
            turn if turn.role == "gpt" else Turn("human", self._strip(turn.text))
            for turn in record.turns
        ]
        shows = any(IMAGE_PLACEHOLDER in turn.text for turn in turns)
        try:
            images = [open_image(path) for path in pool.image_paths(index)] if shows else []
            rendered = render(turns, self._whole.template, processor, system=record.system)
            inputs = encode_text(rendered.text, rendered.loss_spans, images, processor)
            if self._is_cut[number]:
                inputs = keep_labels(inputs, self._whole.encode(index)["labels"])
        except (BadRecordError, ImageError) as error:
            return unusable(error)
        return Encoded(inputs, inputs["labels"] != IGNORED_LABEL, len(images))


def keep_labels(inputs: dict[str, torch.Tensor], labels_L: torch.Tensor) -> dict[str, torch.Tensor]:
    """A record's inputs up to the last label that the whole record has after its cut."""
    num_labels = int((labels_L != IGNORED_LABEL).sum())
    places = (inputs["labels"] != IGNORED_LABEL).nonzero()[:, 0]
    end = int(places[:num_labels][-1]) + 1
    return {key: value[:end] if key in TOKEN_KEYS else value for key, value in inputs.items()}


def strip_images(question: str) -> str:
    """A question without placeholders, and without the line breaks behind or before them."""
    first, *others = question.split(IMAGE_PLACEHOLDER)
    return (first + "".join(piece.removeprefix("\n") for piece in others)).strip("\n")


def strip_words(question: str) -> str:
    """A question's placeholders alone."""
    return IMAGE_PLACEHOLDER * question.count(IMAGE_PLACEHOLDER)


BLIND_LOSSES: EvidenceSource = whole_model_source(
    "blind_losses",
    tuple(f"blind_{name}" for name in LOSS_COLUMNS),
    build_answer_losses,
    encode=partial(PartDataset, strip=strip_images),
)
"""Read by visual_gain."""

UNASKED_LOSSES: EvidenceSource = whole_model_source(
    "unasked_losses",
    tuple(f"unasked_{name}" for name in LOSS_COLUMNS),
    build_answer_losses,
    encode=partial(PartDataset, strip=strip_words),
)
"""Read by presel."""
