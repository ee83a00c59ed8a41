"""How long records will be as tokens, without decoding their images.

In: records of a pool, the processor and template. Out: one length a record. Text is tokenised;
image tokens are counted by running the processor on blank images of the same size.

Shape legend: N records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prism_tune.chat.templates import image_token
from prism_tune.config.sections import Template
from prism_tune.data.conversation import render
from prism_tune.data.encoding.blocks import find_of_all
from prism_tune.data.encoding.encoder import count_text_tokens, run_processor
from prism_tune.data.image_paths import ImageError
from prism_tune.data.images import read_size
from prism_tune.data.policy import BadRecordError
from prism_tune.data.records import Pool

NO_LENGTH = -1
"""Of a record that cannot be encoded; encoding it says why."""

_PROBED_SIZES = ((224, 224), (1200, 400))


def estimate_lengths(
    pool: Pool, indices: Sequence[int], processor: Any, template: Template
) -> NDArray[np.int64]:
    """Tokens of each record, image tokens included, before any cutting; else `NO_LENGTH`.

    Exact wherever an image's tokens depend only on its size, and on whether it is the only one.
    Image files are opened (their headers read) only for processors that give images of different
    sizes different lengths, and where the shape of an image is odd.
    """
    find = _Lengths(pool, processor, template)
    return find_of_all(find, indices, pool.config.num_workers)


class _Lengths:
    """The lengths of a block of records."""

    def __init__(self, pool: Pool, processor: Any, template: Template) -> None:
        self._pool = pool
        self._processor = processor
        self._template: Template = template
        self._counter = _ImageTokenCounter(processor)
        _ = pool.image_index  # once, not by every process

    def __call__(self, indices: Sequence[int]) -> NDArray[np.int64]:
        pool, processor = self._pool, self._processor
        records = [pool[index] for index in indices]
        texts = [render(r.turns, self._template, processor, system=r.system).text for r in records]
        lengths = []
        for index, num_text in zip(indices, _count_texts(texts, processor), strict=True):
            try:
                length = num_text + self._counter.count_extra(pool, index)
            except ImageError:
                length = NO_LENGTH
            lengths.append(length if num_text >= 0 else NO_LENGTH)
        return np.array(lengths, dtype=np.int64)


def _count_texts(texts: Sequence[str], processor: Any) -> list[int]:
    if not texts:
        return []
    try:
        return count_text_tokens(texts, processor)
    except BadRecordError:
        if len(texts) == 1:
            return [NO_LENGTH]
    return [num for text in texts for num in _count_texts([text], processor)]


class _ImageTokenCounter:
    """How many more tokens than its one placeholder an image takes, by size.

    Where a record has several images, some processors (OneVision's) cut none of them into tiles.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._by_size: dict[tuple[tuple[int, int], bool], int | ImageError] = {}
        probed = {
            several: {self._count(size, several=several) for size in _PROBED_SIZES}
            for several in (False, True)
        }
        self._constant = {
            several: found.pop() if len(found) == 1 else None for several, found in probed.items()
        }

    def count_extra(self, pool: Pool, index: int) -> int:
        names = pool.images(index)
        several = len(names) > 1
        constant = self._constant[several]
        if constant is not None and pool.image_index.strips.isdisjoint(names):
            return constant * len(names)
        sizes = [read_size(path) for path in pool.image_paths(index)]
        return sum(self._count(size, several=several) for size in sizes)

    def _count(self, size: tuple[int, int], *, several: bool) -> int:
        key = (size, several)
        if key not in self._by_size:
            try:
                self._by_size[key] = self._run(size, 2 if several else 1)
            except ImageError as error:
                self._by_size[key] = error
        found = self._by_size[key]
        if isinstance(found, ImageError):
            raise found
        return found

    def _run(self, size: tuple[int, int], num_images: int) -> int:
        blanks = [Image.new("RGB", size)] * num_images
        text = image_token(self._processor) * num_images
        inputs = run_processor(self._processor, [text], [blanks], add_special_tokens=False)
        return len(inputs["input_ids"][0]) // num_images - 1
