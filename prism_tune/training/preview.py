"""Records as the model will see them: decoded tokens with their label mask, and thumbnails.

In: a config. Out: the console, and PNG files in a folder apart from the run's.

Shape legend: L tokens of one record.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.text import Text

from prism_tune.config.sections import Config
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.encoding.encoder import image_token_id
from prism_tune.data.images import open_image
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.records import Pool, open_pool
from prism_tune.errors import UserError
from prism_tune.models.processor import load_processor, resolve_template
from prism_tune.run.folder import write_atomic
from prism_tune.run.log import console

_ANSWER_STYLE = "bold green"
_IMAGE_STYLE = "magenta"
_THUMBNAIL_PIXELS = (256, 256)


def preview(config: Config, thumbnails: Path, *, num_records: int) -> None:
    """Print `num_records` records, evenly spread over the pool; their images go to `thumbnails`.

    Green tokens carry loss; a run of image tokens is shown as one, with its length.

    Raises:
        UserError: the pool is empty, or one of the records cannot be used.
    """
    config = resolve_template(config)
    pool = open_pool(config.data)
    if len(pool) == 0:
        raise UserError(f"{pool.path}: no records to show")
    numbers = np.unique(np.linspace(0, len(pool) - 1, min(num_records, len(pool))).astype(int))
    processor = load_processor(config.model)
    examples = TuningDataset(
        pool, numbers.tolist(), processor, config.model.template, config.data.max_length
    )
    for number, index in enumerate(examples.indices):
        example = examples[number]
        console.print(Text(f"{pool.describe(index)}, source {pool.sources[index]}", "bold"))
        console.print(colour_tokens(example["input_ids"], example["labels"], processor))
        console.print(_count(example["input_ids"], example["labels"], processor))
        for path in _save_thumbnails(pool, index, thumbnails):
            console.print(Text(f"thumbnail: {path}", "dim"), soft_wrap=True)


def colour_tokens(input_ids_L: torch.Tensor, labels_L: torch.Tensor, processor: Any) -> Text:
    """The decoded tokens; those with a label green, image tokens as `<image> x N`."""
    text = Text()
    for style, ids in _runs(input_ids_L.tolist(), labels_L.tolist(), image_token_id(processor)):
        if style == _IMAGE_STYLE:
            text.append(f"{processor.image_token} x {len(ids)}", style)
        else:
            decoded = processor.tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            text.append(decoded, style)
    return text


def _runs(ids: list[int], labels: list[int], image_id: int) -> Iterator[tuple[str, list[int]]]:
    """Neighbouring tokens of one style."""

    def style(pair: tuple[int, int]) -> str:
        if pair[0] == image_id:
            return _IMAGE_STYLE
        return "" if pair[1] == IGNORED_LABEL else _ANSWER_STYLE

    for name, pairs in groupby(zip(ids, labels, strict=True), key=style):
        yield name, [token for token, _ in pairs]


def _count(input_ids_L: torch.Tensor, labels_L: torch.Tensor, processor: Any) -> Text:
    num_image = int((input_ids_L == image_token_id(processor)).sum())
    num_labels = int((labels_L != IGNORED_LABEL).sum())
    counts = f"{len(input_ids_L)} tokens: {num_image} of images, {num_labels} with label"
    return Text(counts, style="dim")


def _save_thumbnails(pool: Pool, index: int, folder: Path) -> list[Path]:
    saved = []
    for number, path in enumerate(pool.image_paths(index)):
        image = open_image(path)
        image.thumbnail(_THUMBNAIL_PIXELS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        saved.append(folder / f"{pool.uids[index]}-{number}.png")
        write_atomic(saved[-1], buffer.getvalue())
    return saved
