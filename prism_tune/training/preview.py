"""Records as the model will see them: decoded tokens with their label mask, and thumbnails.

In: a config. Out: the console, and PNG files in a folder apart from the run's.

Shape legend: L tokens of one record.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.text import Text

from prism_tune.config.sections import Config
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.encoding.encoder import image_token_id
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import open_image
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.policy import BadRecordError, decide
from prism_tune.data.records import Pool, open_pool
from prism_tune.errors import UserError
from prism_tune.models.processor import load_processor, resolve_template
from prism_tune.run.folder import RunDir, write_atomic
from prism_tune.run.log import console
from prism_tune.run.subset_file import subset_data

_ANSWER_STYLE = "bold green"
_IMAGE_STYLE = "magenta"
_BRACKETS = ("\u27e6", "\u27e7")
_NUM_LISTED = 12
_THUMBNAIL_PIXELS = (256, 256)


@dataclass(frozen=True)
class Choice:
    """Which records are shown: those called so, or so many of what is left of the pool.

    Attributes:
        num_records: evenly spread, where none is named.
        names: ids or uids.
        source: of this source alone.
        run: of its subset alone.
    """

    num_records: int = 3
    names: tuple[str, ...] = ()
    source: str | None = None
    run: RunDir | None = None


def preview(config: Config, thumbnails: Path, choice: Choice) -> None:
    """Print the chosen records; their images go to `thumbnails`.

    Green tokens carry loss, without colours those in brackets; a run of image tokens is shown as
    one, with its length.

    Raises:
        UserError: no record is as chosen, or one of them cannot be used and data.policy is to fail.
    """
    config = resolve_template(config)
    data = config.data if choice.run is None else subset_data(config.data, choice.run)
    pool = open_pool(data)
    numbers = np.array(_choose(pool, choice))
    console.print(_explain())
    processor = load_processor(config.model)
    examples = TuningDataset(
        pool, numbers.tolist(), processor, config.model.template, config.data.max_length
    )
    plain = not console.is_terminal
    for index in examples.indices:
        try:
            example = examples.encode(index)
        except (BadRecordError, ImageError) as error:
            if decide(error.reason, data.policy) != "skip":
                raise UserError(f"{pool.describe(index)}: {error}") from error
            console.print(Text(f"left out ({error.reason}): {pool.describe(index)}: {error}"))
            continue
        console.print(Text(f"{pool.describe(index)}, source {pool.sources[index]}", "bold"))
        tokens = colour_tokens(example["input_ids"], example["labels"], processor, plain=plain)
        console.print(tokens, soft_wrap=plain)
        console.print(_count(example["input_ids"], example["labels"], processor))
        for path in _save_thumbnails(pool, index, thumbnails):
            console.print(Text(f"thumbnail: {path}", "dim"), soft_wrap=True)


def _choose(pool: Pool, choice: Choice) -> list[int]:
    """Their indices, in the pool's order."""
    if choice.names:
        wanted = set(choice.names)
        found = [n for n in range(len(pool)) if {pool.ids[n], pool.uids[n]} & wanted]
        unknown = wanted - {name for n in found for name in (pool.ids[n], pool.uids[n])}
        if unknown:
            raise UserError(f"{pool.path}: no record with the id or uid {min(unknown)!r}")
        return found
    of_source = [n for n in range(len(pool)) if choice.source in (None, pool.sources[n])]
    if not of_source:
        known = ", ".join(sorted(set(pool.sources))[:_NUM_LISTED])
        named = "no records to show" if choice.source is None else f"none of {choice.source!r}"
        raise UserError(f"{pool.path}: {named}" + (f"; its sources: {known}" if known else ""))
    places = np.linspace(0, len(of_source) - 1, min(choice.num_records, len(of_source)))
    return [of_source[place] for place in np.unique(places.astype(int)).tolist()]


def _explain() -> Text:
    """The legend."""
    if not console.is_terminal:
        opening, closing = _BRACKETS
        return Text(f"{opening}text{closing}: carries loss; the rest is read and not learnt")
    legend = Text().append("answers that carry loss", _ANSWER_STYLE)
    return legend.append(", ").append("image tokens", _IMAGE_STYLE).append(", what is only read")


def colour_tokens(
    input_ids_L: torch.Tensor, labels_L: torch.Tensor, processor: Any, *, plain: bool
) -> Text:
    """The decoded tokens; those with a label green, image tokens as `<image> x N`.

    With `plain` those with a label stand in brackets as well, for where there are no colours.
    """
    text = Text()
    for style, ids in _runs(input_ids_L.tolist(), labels_L.tolist(), image_token_id(processor)):
        if style == _IMAGE_STYLE:
            text.append(f"{processor.image_token} x {len(ids)}", style)
        else:
            decoded = processor.tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            marked = plain and style == _ANSWER_STYLE
            text.append(decoded.join(_BRACKETS) if marked else decoded, style)
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
