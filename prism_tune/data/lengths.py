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

from prism_tune.config.sections import Template
from prism_tune.data.conversation import adds_special_tokens, image_token, render
from prism_tune.data.images import read_size
from prism_tune.data.records import Pool

_BATCH_RECORDS = 1000
_PROBED_SIZES = ((224, 224), (1200, 400))


def estimate_lengths(
    pool: Pool, indices: Sequence[int], processor: Any, template: Template
) -> NDArray[np.int64]:
    """Tokens of each record, image tokens included, before any cutting.

    Exact wherever an image's tokens depend on its size only. Image files are opened (their
    headers read) only for processors that give images of different sizes different lengths.
    """
    counter = _ImageTokenCounter(processor)
    lengths_N = np.zeros(len(indices), dtype=np.int64)
    for start in range(0, len(indices), _BATCH_RECORDS):
        batch = indices[start : start + _BATCH_RECORDS]
        records = [pool[index] for index in batch]
        texts = [render(r.turns, template, processor, system=r.system).text for r in records]
        special = adds_special_tokens(texts[0], processor.tokenizer)
        encoded = processor.tokenizer(texts, add_special_tokens=special)
        for offset, (index, ids) in enumerate(zip(batch, encoded["input_ids"], strict=True)):
            lengths_N[start + offset] = len(ids) + counter.count_extra(pool, index)
    return lengths_N


class _ImageTokenCounter:
    """How many more tokens than its one placeholder an image takes, by size."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._by_size: dict[tuple[int, int], int] = {}
        probed = {self._count(size) for size in _PROBED_SIZES}
        self._constant = probed.pop() if len(probed) == 1 else None

    def count_extra(self, pool: Pool, index: int) -> int:
        names = pool.images(index)
        if self._constant is not None:
            return self._constant * len(names)
        return sum(self._count(read_size(path)) for path in pool.image_paths(index))

    def _count(self, size: tuple[int, int]) -> int:
        if size not in self._by_size:
            token = image_token(self._processor)
            blank = Image.new("RGB", size)
            inputs = self._processor(images=[blank], text=[token], add_special_tokens=False)
            self._by_size[size] = len(inputs["input_ids"][0]) - 1
        return self._by_size[size]
