"""Cosines of every record's images and text in a dual encoder.

A pool goes in; the embedding of every distinct image and of every distinct text comes out of two
stores, filled and resumed like those of features; then one cosine per record.

Shape legend: N records, U rows of a store, Q (image, text) pairs, D width.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.depends import name_image_library
from prism_tune.config.sections import Config, Section
from prism_tune.data.policy import apply_policy
from prism_tune.data.records import Pool
from prism_tune.features.shards import Shard, SomeRows, StoredRows
from prism_tune.models.devices import name_dtype, pick_device, resolve_dtype
from prism_tune.processes import is_main
from prism_tune.run.fingerprints import fingerprint_model
from prism_tune.schema import IMAGE_PLACEHOLDER, Record, Skipped
from prism_tune.selection.evidence.embeddings.dual_encoder import (
    DualEncoder,
    ImageDataset,
    ImageEncoder,
    TextDataset,
    TextEncoder,
)
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering, Reading
from prism_tune.selection.evidence.store import EvidenceStore
from prism_tune.selection.evidence.units import skip_record, usable_images
from prism_tune.selection.scorer_options import read_options

_VERSION = 1
_NAMES = ("image_embeddings", "text_embeddings")
_BLOCK_ROWS = 65_536

TextPart = Literal["record", "question"]
"""Whether the encoder reads a record's answers too."""


class EncoderOptions(Section):
    """`selection.options` of clip_score: the dual encoder, and which turns it reads."""

    model: str = Field(description="the directory or hub id of a CLIP or SigLIP model")
    revision: str | None = None
    text: TextPart = "record"


@dataclass(frozen=True)
class Pairs:
    """Which texts and images belong together: keys by record, and each key's first record."""

    part: TextPart
    text_of: dict[int, str]
    images_of: dict[int, list[str]]
    texts: dict[str, int]
    images: dict[str, int]
    skipped: dict[int, Skipped]

    def read_text(self, pool: Pool, key: str) -> str:
        """What a text's key stands for."""
        return record_text(pool[self.texts[key]], self.part)

    def find_path(self, pool: Pool, key: str) -> Path:
        """The file of an image."""
        index = self.images[key]
        return pool.image_paths(index)[self.images_of[index].index(key)]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a pool: who has which, and the shards they lie in."""

    pairs: Pairs
    images: list[Shard]
    texts: list[Shard]
    readings: tuple[Reading, ...]
    description: dict[str, Any]


def compute_cosines(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
    """The cosine of every record, (N, 1); without values but on the main process, which scores.

    Raises:
        UserError: no such encoder; a broken image whose policy is "fail".
    """
    found = embed_pool(gathering, left_out, read_options(gathering.config, EncoderOptions))
    num_records = len(gathering.pool)
    values_N1 = _cosines(found, num_records)[:, None] if is_main() else None
    return Evidence(
        values_UD=values_N1,
        row_N=np.arange(num_records),
        skipped=found.pairs.skipped,
        readings=found.readings,
        description=found.description,
        columns=("cosine",),
    )


def embed_pool(
    gathering: Gathering, left_out: Mapping[int, Skipped], options: EncoderOptions
) -> Embedded:
    """Every distinct image and text of a pool in the encoder that the options name.

    Raises:
        UserError: no such encoder; a broken image whose policy is "fail".
    """
    began = time.perf_counter()
    config, pool = gathering.config, gathering.pool
    device = pick_device()
    dtype = resolve_dtype(config.selection.dtype, device)
    encoder = DualEncoder(options.model, options.revision, dtype, device)
    pairs = _pair_up(pool, options.text, *usable_images(config, pool, left_out))
    readings = []
    for name, keys in zip(_NAMES, (sorted(pairs.images), sorted(pairs.texts)), strict=True):
        store = EvidenceStore(config.output_dir, name, describe_encoder(config, options))
        computation = _plan(config, pool, pairs, encoder, began)[name]
        readings.append(fill([store], keys, computation, gathering))
        began = time.perf_counter()
    images, texts = (reading.files for reading in readings)
    before, pairs = pairs.skipped, _skip_unreadable(pool, pairs, images)
    found = [item for index, item in pairs.skipped.items() if index not in before]
    apply_policy(str(pool.path), found, config.data.policy)
    description = {}
    if is_main():  # which alone describes the selection
        every_text = (pairs.read_text(pool, key) for key in pairs.texts)
        description["num_texts_cut"] = encoder.count_cut(every_text)
    return Embedded(pairs, images, texts, tuple(readings), description)


def describe_encoder(config: Config, options: EncoderOptions) -> dict[str, Any]:
    """What embeddings depend on: the encoder in place of the target model."""
    dtype = resolve_dtype(config.selection.dtype, pick_device())
    return {
        "selection.options.model": fingerprint_model(options.model, options.revision),
        "image library": name_image_library("pil"),
        "selection.dtype": name_dtype(dtype),
        "version": _VERSION,
    }


def record_text(record: Record, part: TextPart = "record") -> str:
    """What the encoder reads: questions, and answers in their order, without placeholders."""
    turns = [turn for turn in record.turns if part == "record" or turn.role == "human"]
    texts = (turn.text.replace(IMAGE_PLACEHOLDER, " ").split() for turn in turns)
    return " ".join(word for words in texts for word in words)


def _plan(
    config: Config, pool: Pool, pairs: Pairs, encoder: DualEncoder, began: float
) -> dict[str, Computation]:
    """How each of the two stores is filled."""
    images = Computation(
        title="images",
        load_runner=lambda: ImageEncoder(encoder),
        encode=lambda keys: ImageDataset([pairs.find_path(pool, key) for key in keys], encoder),
        tokens_per_batch=config.selection.tokens_per_batch,
        num_workers=config.data.num_workers,
        began=began,
    )
    texts = replace(
        images,
        title="texts",
        load_runner=lambda: TextEncoder(encoder),
        encode=lambda keys: TextDataset([pairs.read_text(pool, key) for key in keys], encoder),
        order=lambda key: len(pairs.read_text(pool, key)),
    )
    return dict(zip(_NAMES, (images, texts), strict=True))


def _pair_up(
    pool: Pool, part: TextPart, images_of: dict[int, list[str]], skipped: dict[int, Skipped]
) -> Pairs:
    pairs = Pairs(part, {}, images_of, {}, {}, skipped)
    for index, hashes in images_of.items():
        text = record_text(pool[index], part)
        key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        pairs.text_of[index] = key
        pairs.texts.setdefault(key, index)
        for name in hashes:
            pairs.images.setdefault(name, index)
    return pairs


def _skip_unreadable(pool: Pool, pairs: Pairs, shards: list[Shard]) -> Pairs:
    """Take out the records with an image that could not be decoded after all."""
    failed = {key: fault for shard in shards for key, fault in shard.failed.items()}
    bad = {
        index: skip_record(pool, index, *next(failed[key] for key in keys if key in failed))
        for index, keys in pairs.images_of.items()
        if failed.keys() & set(keys)
    }
    images_of = {index: keys for index, keys in pairs.images_of.items() if index not in bad}
    return replace(pairs, images_of=images_of, skipped={**pairs.skipped, **bad})


def _cosines(found: Embedded, num_records: int) -> NDArray[np.float64]:
    """The mean cosine of each record's images with its text (N,); NaN for records without."""
    cosines_N = np.full(num_records, np.nan)
    pairs = found.pairs
    if not pairs.images_of:
        return cosines_N
    images, texts = StoredRows(found.images), StoredRows(found.texts)
    image_row = {key: row for row, key in enumerate(images.keys)}
    text_row = {key: row for row, key in enumerate(texts.keys)}
    triples = sorted(
        (text_row[pairs.text_of[index]], image_row[key], index)
        for index, keys in pairs.images_of.items()
        for key in keys
    )
    text_Q, image_Q, record_Q = np.array(triples, dtype=np.int64).T
    images_UD = _read_normalised(images)
    cosines_Q = np.empty(len(triples))
    for start in range(0, len(triples), _BLOCK_ROWS):
        at = slice(start, start + _BLOCK_ROWS)
        rows, back_B = np.unique(text_Q[at], return_inverse=True)
        texts_UD = normalise(SomeRows(texts, rows)[:])
        cosines_Q[at] = np.einsum(
            "qd,qd->q", texts_UD[back_B], images_UD[image_Q[at]], dtype=np.float64
        )
    sums_N = np.bincount(record_Q, cosines_Q, minlength=num_records)
    counts_N = np.bincount(record_Q, minlength=num_records)
    return np.divide(sums_N, counts_N, out=cosines_N, where=counts_N > 0)


def _read_normalised(stored: StoredRows) -> NDArray[np.float32]:
    """All rows at length 1, held once: read a block at a time."""
    rows_UD = np.empty(stored.shape, dtype=np.float32)
    for start in range(0, len(rows_UD), _BLOCK_ROWS):
        at = slice(start, start + _BLOCK_ROWS)
        rows_UD[at] = normalise(stored[at])
    return rows_UD


def normalise(rows_UD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at length 1."""
    return rows_UD / np.linalg.norm(rows_UD, axis=1, keepdims=True)


COSINES: EvidenceSource = EvidenceSource(
    "cosines",
    lambda config: describe_encoder(config, read_options(config, EncoderOptions)),
    compute_cosines,
    lambda config: False,
)
