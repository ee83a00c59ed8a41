"""Which tokens carry loss: the answers and their end tokens, found by character spans.

In: the answers' characters, the processor's replacement offsets, the tokenizer's offsets. Out:
labels. Nothing is counted, so no tokenizer's way of merging can shift a mask.

Shape legend: L tokens of one record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from prism_tune.data.literal_text import move_spans
from prism_tune.errors import UserError

IGNORED_LABEL = -100
"""The label of a token without loss, as torch and transformers have it."""

Span = tuple[int, int]


def expand_spans(spans: Sequence[Span], replacements: Any, num_images: int) -> list[Span]:
    """Move spans of a text to where they are after the processor expanded the image tokens.

    Args:
        spans: before.
        replacements: the processor's `text_replacement_offsets` of a batch of one.
        num_images: how many placeholders were to be expanded.

    Raises:
        UserError: the processor does not say where it expanded.
    """
    # Some processors give a tensor of shape (1, 0) where a text has no image.
    moves = list(replacements[0]) if replacements is not None and len(replacements) else []
    if len(moves) != num_images:
        raise UserError(
            f"the processor reports {len(moves)} of {num_images} expanded image tokens; labels "
            "cannot be placed (it has to support `return_text_replacement_offsets`)"
        )
    return move_spans(spans, [(*item["span"], len(item["replacement"])) for item in moves])


def mask_labels(
    input_ids_L: torch.Tensor, offsets: Sequence[Span], spans: Sequence[Span]
) -> torch.Tensor:
    """Labels of shape L: the token's id where its characters touch an answer, else -100.

    A token that begins before an answer and reaches into it belongs to the answer. Some tokenizers
    give a token of spaces no width; inside an answer it is labelled like any other.
    """
    labels_L = torch.full_like(input_ids_L, IGNORED_LABEL)
    remaining = iter(spans)
    span = next(remaining, None)
    for position, (start, end) in enumerate(offsets):
        while span is not None and start >= span[1]:
            span = next(remaining, None)
        if span is None:
            break
        if end > span[0]:
            labels_L[position] = input_ids_L[position]
    return labels_L


def select_labelled(labels_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which positions predict a label (boolean, B x L), and those K labels in the same order."""
    next_BL = functional.pad(labels_BL, (0, 1), value=IGNORED_LABEL)[:, 1:]
    keep_BL = next_BL != IGNORED_LABEL
    return keep_BL, next_BL[keep_BL]
