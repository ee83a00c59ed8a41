"""What a dual encoder makes of a record: [image; text], each at length 1.

Read from the same two stores as the cosines of `image_text.py`; the matrix is made in memory (of
665K records in CLIP ViT-L/14, 3.8 GB), on the main process alone, which scores.

Shape legend: N records, U records with an image, D width of the encoder's space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.shards import StoredRows
from prism_tune.processes import is_main
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.embeddings.image_text import (
    Embedded,
    EncoderOptions,
    describe_encoder,
    embed_pool,
    normalise,
)
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering

NAME: Literal["joint_embeddings"] = "joint_embeddings"

_BLOCK_ROWS = 65_536


def joint_embeddings(options: EncoderOptions) -> EvidenceSource:
    """The source of one row for each record with an image, (U, 2 D)."""

    def compute(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
        found = embed_pool(gathering, left_out, options)
        row_N = np.full(len(gathering.pool), -1, dtype=np.int64)
        records = sorted(found.pairs.images_of)
        row_N[records] = np.arange(len(records))
        values_UD = _join(found, records) if records and is_main() else None
        return Evidence(values_UD, row_N, found.pairs.skipped, found.readings, found.description)

    return EvidenceSource(
        NAME, lambda config: describe_encoder(config, options), compute, lambda config: False
    )


def _join(found: Embedded, records: list[int]) -> NDArray[np.float32]:
    """[image; text] of these records; of several images the mean, at length 1 again."""
    images, texts, pairs = StoredRows(found.images), StoredRows(found.texts), found.pairs
    width = images.shape[1]
    joined_UD = np.zeros((len(records), 2 * width), dtype=np.float32)
    shown = [(key, n) for n, index in enumerate(records) for key in pairs.images_of[index]]
    said = [(pairs.text_of[index], n) for n, index in enumerate(records)]
    _add_rows(joined_UD[:, :width], images, shown)
    _add_rows(joined_UD[:, width:], texts, said)
    for half in (joined_UD[:, :width], joined_UD[:, width:]):
        lengths = np.linalg.norm(half, axis=1, keepdims=True)
        np.divide(half, lengths, out=half, where=lengths > 0)
    return joined_UD


def _add_rows(
    sums_UD: NDArray[np.float32], stored: StoredRows, wanted: list[tuple[str, int]]
) -> None:
    """Add to row n the stored row of each key, at length 1; a block of the store at a time."""
    row_of = {key: row for row, key in enumerate(stored.keys)}
    pairs = sorted((row_of[key], n) for key, n in wanted)
    rows, targets = np.array(pairs, dtype=np.int64).T
    for start in range(0, stored.shape[0], _BLOCK_ROWS):
        first, last = np.searchsorted(rows, [start, start + _BLOCK_ROWS])
        block = normalise(stored[slice(start, start + _BLOCK_ROWS)])
        np.add.at(sums_UD, targets[first:last], block[rows[first:last] - start])
