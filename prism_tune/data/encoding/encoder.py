"""The one way from a rendered text and its images to a model's inputs: the model's own processor.

Training, the audit's lengths, scoring, the extraction of features, preview and generation go
through here, with the images as one list for each text: a flat list is taken for the images of one
text by some processors, and for tiles of one image by others.

Shape legend: B texts, L tokens (of the longest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from prism_tune.data.conversation import adds_special_tokens
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import MAX_PIXELS
from prism_tune.data.labels import IGNORED_LABEL, Span, expand_spans, mask_labels
from prism_tune.data.literal_text import WrittenOut, move_spans, splice, write_out
from prism_tune.data.pixels import pad_to_square
from prism_tune.errors import UserError, first_line

TOKEN_KEYS = ("input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids")
"""What has one value a token; everything else belongs to the images."""

_REFUSALS = (ValueError, ZeroDivisionError, RuntimeError, OverflowError, IndexError)
"""What image processors raise for a size they cannot handle."""

_FAILURES = (*_REFUSALS, TypeError, AttributeError, KeyError)
"""What processors raise besides, of a config that does not fit them."""


def encode_text(
    text: str, spans: Sequence[Span], images: Sequence[Image.Image], processor: Any
) -> dict[str, torch.Tensor]:
    """A rendered text and its images as the model reads them.

    Args:
        text: with one image token for each image.
        spans: [start, end) characters whose tokens are labelled. Without any, a tokenizer that
            gives no offsets will do.
        images: decoded.
        processor: the model's.

    Returns:
        The processor's tensors (those of `TOKEN_KEYS` of shape L), and `labels` of shape L: the
        token's id where its characters touch a span, else -100.

    Raises:
        ImageError: the processor refuses an image.
        BadRecordError: a control token in the text that cannot be written as text.
    """
    written = write_out(text, processor)
    offsets = {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
    outputs = run_processor(processor, [written.text], [images], **(offsets if spans else {}))
    offsets_keys = ("offset_mapping", "text_replacement_offsets")
    inputs = {
        key: value[0] if key in TOKEN_KEYS else value
        for key, value in outputs.items()
        if isinstance(value, torch.Tensor) and key not in offsets_keys
    }
    labels_L = torch.full_like(inputs["input_ids"], IGNORED_LABEL)
    if spans:
        moved = move_spans(spans, written.changes)
        moved = expand_spans(moved, outputs.get("text_replacement_offsets"), len(images))
        labels_L = mask_labels(inputs["input_ids"], outputs["offset_mapping"][0].tolist(), moved)
    return _splice_row({**inputs, "labels": labels_L}, written)


def encode_prompts(
    texts: Sequence[str], images: Sequence[Sequence[Image.Image]], processor: Any
) -> dict[str, torch.Tensor]:
    """A batch of prompts to be answered, padded on the left.

    Returns:
        Token inputs (B, L), and what the processor makes of the images, in the order of the
        placeholders; without it when there is no image.

    Raises:
        ImageError, BadRecordError: as `encode_text`.
    """
    written = [write_out(text, processor) for text in texts]
    padding = {"padding": True, "padding_side": "left"}
    plain = [of_text.text for of_text in written]
    inputs = dict(run_processor(processor, plain, images, **padding))
    if not any(of_text.literals for of_text in written):
        return inputs
    keys = [key for key in TOKEN_KEYS if key in inputs]
    is_token_BL = inputs["attention_mask"].bool()
    rows = [
        _splice_row({key: inputs[key][number][is_token_BL[number]] for key in keys}, of_text)
        for number, of_text in enumerate(written)
    ]
    length = max(len(row["input_ids"]) for row in rows)
    padding_ids = inputs["input_ids"][~is_token_BL]
    fill_id = int(padding_ids[0]) if len(padding_ids) else pad_id(processor)
    for key in keys:
        fill = fill_id if key == "input_ids" else 0
        inputs[key] = torch.stack(
            [
                torch.nn.functional.pad(row[key], (length - len(row[key]), 0), value=fill)
                for row in rows
            ]
        )
    return inputs


def count_text_tokens(texts: Sequence[str], processor: Any) -> list[int]:
    """Tokens of rendered texts, one for each image token.

    Raises:
        BadRecordError: as `encode_text`.
    """
    written = [write_out(text, processor) for text in texts]
    special = adds_special_tokens(written[0].text, processor.tokenizer)
    encoded = processor.tokenizer([w.text for w in written], add_special_tokens=special)
    return [len(ids) + w.num_more for ids, w in zip(encoded["input_ids"], written, strict=True)]


def run_processor(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    **options: Any,
) -> Mapping[str, Any]:
    """Call the processor.

    Args:
        processor: the model's.
        texts: of a batch, without marks.
        images: one list for each text.
        options: of the call; special tokens are added where the text does not begin with its own.

    Raises:
        ImageError: it refuses an image.
        UserError: it fails whatever it is shown.
    """
    options.setdefault("add_special_tokens", adds_special_tokens(texts[0], processor.tokenizer))
    nested = [list(of_text) for of_text in images]
    for image in [image for of_text in nested for image in of_text]:
        _require_bounded(image, processor)
    try:
        outputs: Mapping[str, Any] = processor(
            images=_square(nested, processor.image_processor) if any(nested) else None,
            text=list(texts),
            return_tensors="pt",
            **options,
        )
    except _FAILURES as error:
        for image in [image for of_text in nested for image in of_text]:
            require_accepted(image, processor)
        raise UserError(
            f"model.path: its processor fails: {type(error).__name__}: {first_line(error)}; a "
            "value of processor_config.json or tokenizer_config.json is none that it takes: get "
            "the model's files again"
        ) from error
    return outputs


def _square(nested: list[list[Image.Image]], image_processor: Any) -> list[list[Image.Image]]:
    """Images padded to a square as LLaVA's processor would pad them next, pixel for pixel.

    It pads an array of channels, which Pillow, to resize it, has to turn number by number: a third
    of all that the processor takes.
    """
    own = type(image_processor).__name__ == "LlavaImageProcessorPil"
    if not (own and image_processor.do_pad and image_processor.image_mean):
        return nested
    mean = image_processor.image_mean
    return [[pad_to_square(image, mean) for image in of_text] for of_text in nested]


def require_accepted(image: Image.Image, processor: Any, name: str = "an image") -> None:
    """Show an image to the image processor alone.

    Raises:
        ImageError: it refuses it.
    """
    _require_bounded(image, processor, name)
    try:
        processor.image_processor([[image]], return_tensors="pt")
    except _REFUSALS as error:
        raise ImageError(
            "image_refused",
            f"{name}: {image.width} x {image.height} pixels, which the model's processor refuses: "
            f"{first_line(error)}",
        ) from error


def _require_bounded(image: Image.Image, processor: Any, name: str = "an image") -> None:
    """A line of 1 x 30,000 pixels, padded to a square, takes gigabytes.

    Raises:
        ImageError: padded, or with its shorter edge resized, it has more pixels than any may have.
    """
    image_processor = processor.image_processor
    size = dict(getattr(image_processor, "size", None) or {})
    if set(size) != {"shortest_edge"} or getattr(image_processor, "image_grid_pinpoints", None):
        return  # resized to a bounded size at once
    (short, long), edge = sorted(image.size), size["shortest_edge"]
    pads = bool(getattr(image_processor, "do_pad", False))
    num_pixels = long**2 if pads else edge**2 * long // short
    if num_pixels > MAX_PIXELS:
        made = "padded to a square" if pads else f"with its shorter edge resized to {edge}"
        raise ImageError(
            "image_refused",
            f"{name}: {image.width} x {image.height} pixels, which would be {num_pixels:,} when "
            f"{made}; {MAX_PIXELS:,} at most: crop it",
        )


def image_token_id(processor: Any) -> int:
    """The id of the processor's image token."""
    token_id = getattr(processor, "image_token_id", None)
    if token_id is None:
        token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    return int(token_id)


def _splice_row(row: Mapping[str, torch.Tensor], written: WrittenOut) -> dict[str, torch.Tensor]:
    """One text's tensors, with the ids of its literals in place of their stand-ins."""
    if not written.literals:
        return dict(row)
    tokens = splice(row["input_ids"].tolist(), written)
    places = torch.tensor([place for place, _ in tokens])
    ids_L = torch.tensor([token for _, token in tokens], dtype=row["input_ids"].dtype)
    spliced = {key: value[places] if key in TOKEN_KEYS else value for key, value in row.items()}
    spliced["input_ids"] = ids_L
    if "labels" in spliced:
        is_label_L = spliced["labels"] != IGNORED_LABEL
        spliced["labels"] = torch.where(is_label_L, ids_L, IGNORED_LABEL)
    return spliced


def pad_id(processor: Any) -> int:
    """What stands where a row has no token; nothing attends to it."""
    found = processor.tokenizer.pad_token_id
    return int(processor.tokenizer.eos_token_id if found is None else found)
