"""Cosines of every record's images and text in a dual encoder, computed once, kept in the run.

A pool goes in; the embedding of every distinct image and of every distinct text comes out of two
stores, `selection/image_embeddings/` and `selection/text_embeddings/`, filled and resumed like the
feature store; then one cosine per record.

Shape legend: N records, U rows of a store, Q (image, text) pairs, D width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config, Section
from prism_tune.data.policy import apply_policy
from prism_tune.data.records import Pool
from prism_tune.features.shards import StoredFeatures
from prism_tune.models.load import pick_device, resolve_dtype
from prism_tune.processes import from_main, is_main, main_first
from prism_tune.run.fingerprints import fingerprint_model
from prism_tune.run.folder import RunDir
from prism_tune.schema import IMAGE_PLACEHOLDER, Record, Skipped
from prism_tune.selection.evidence.dual_encoder import (
    DualEncoder,
    ImageDataset,
    ImageEncoder,
    TextDataset,
    TextEncoder,
)
from prism_tune.selection.evidence.features import FeatureTable
from prism_tune.selection.evidence.filling import Computation, fill_store
from prism_tune.selection.evidence.request import Request
from prism_tune.selection.evidence.runner import OUTPUT
from prism_tune.selection.evidence.shard_builder import Counts
from prism_tune.selection.evidence.store import FeatureStore
from prism_tune.selection.evidence.units import skip_record, usable_images
from prism_tune.selection.options import read_options

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 65_536


class EncoderOptions(Section):
    """`selection.options` of clip_score: the dual encoder."""

    model: str = Field(description="the directory or hub id of a CLIP or SigLIP model")
    revision: str | None = None


@dataclass(frozen=True)
class _Pairs:
    """Which texts and images belong together: keys by record, and where each key is found."""

    text_of: dict[int, str]
    images_of: dict[int, list[str]]
    texts: dict[str, int]
    paths: dict[str, Path]
    skipped: tuple[Skipped, ...]


def embedding_inputs(config: Config) -> dict[str, Any]:
    """Everything an embedding depends on besides its image or text, by name."""
    options = read_options(config, EncoderOptions)
    dtype = resolve_dtype(config.selection.dtype, pick_device())
    return {
        "selection.options.model": fingerprint_model(options.model, options.revision),
        "selection.dtype": str(dtype).removeprefix("torch."),
    }


def embedding_store(config: Config, run: RunDir, name: str = "image_embeddings") -> FeatureStore:
    """The run's store of embeddings of one kind."""
    return FeatureStore(run.selection / name, embedding_inputs(config), (OUTPUT,))


def compare_images_and_texts(request: Request) -> FeatureTable:
    """The "cosine" of every record; embeddings that the run has are used again.

    Raises:
        UserError: no such encoder; a broken image whose policy is "fail".
    """
    config, run, pool = request.config, request.run, request.pool
    options = read_options(config, EncoderOptions)
    device = pick_device()
    dtype = resolve_dtype(config.selection.dtype, device)
    encoder = DualEncoder(options.model, options.revision, dtype, device)
    pairs = _pair_up(pool, request.left_out)
    apply_policy(str(pool.path), pairs.skipped, config.data.policy)
    computations = _plan(config, pool, pairs, encoder)
    stores = {name: embedding_store(config, run, name) for name in computations}
    for name, store in stores.items():
        if from_main(partial(store.open, name.replace("_", " "), force=request.force)) is None:
            main_first(partial(store.begin, "whole"))
    keys = {"image_embeddings": sorted(pairs.paths), "text_embeddings": sorted(pairs.texts)}
    description = {
        name: {
            "num_units": len(keys[name]),
            "num_computed": _fill(stores[name], keys[name], computation, request.on_shard),
            "fingerprint": stores[name].fingerprint,
        }
        for name, computation in computations.items()
    }
    pairs = _skip_unreadable(pool, pairs, stores["image_embeddings"])
    apply_policy(str(pool.path), pairs.skipped, config.data.policy)
    cosines_N = _cosines(pairs, len(pool), *stores.values()) if is_main() else np.zeros(0)
    return FeatureTable(
        values_UD=None,
        row_N=np.full(len(pool), -1),
        skipped=pairs.skipped,
        description=description,
        measured={"cosine": cosines_N},
    )


def record_text(record: Record) -> str:
    """What the encoder reads: questions and answers in their order, without placeholders."""
    texts = (turn.text.replace(IMAGE_PLACEHOLDER, " ").split() for turn in record.turns)
    return " ".join(word for words in texts for word in words)


def _plan(
    config: Config, pool: Pool, pairs: _Pairs, encoder: DualEncoder
) -> dict[str, Computation]:
    """How each of the two stores is filled."""
    budget = config.selection.tokens_per_batch
    return {
        "image_embeddings": Computation(
            title="images",
            load_runner=lambda: ImageEncoder(encoder, budget),
            encode=lambda keys: ImageDataset([pairs.paths[key] for key in keys], encoder),
            num_workers=config.data.num_workers,
        ),
        "text_embeddings": Computation(
            title="texts",
            load_runner=lambda: TextEncoder(encoder, budget),
            encode=lambda keys: TextDataset(
                [record_text(pool[pairs.texts[key]]) for key in keys], encoder
            ),
            num_workers=config.data.num_workers,
            order=lambda key: len(record_text(pool[pairs.texts[key]])),
        ),
    }


def _pair_up(pool: Pool, left_out: Mapping[int, Skipped]) -> _Pairs:
    images_of, skipped = usable_images(pool, pool.image_index, left_out)
    pairs = _Pairs({}, images_of, {}, {}, skipped)
    for index, hashes in images_of.items():
        text = record_text(pool[index])
        key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        pairs.text_of[index] = key
        pairs.texts.setdefault(key, index)
        for name, path in zip(hashes, pool.image_paths(index), strict=True):
            pairs.paths.setdefault(name, path)
    return pairs


def _skip_unreadable(pool: Pool, pairs: _Pairs, store: FeatureStore) -> _Pairs:
    """Take out the records with an image that could not be decoded after all."""
    failed = {key: fault for shard in store.shards() for key, fault in shard.failed.items()}
    bad = {
        index: next(failed[key] for key in keys if key in failed)
        for index, keys in pairs.images_of.items()
        if failed.keys() & set(keys)
    }
    skipped = [skip_record(pool, index, reason, detail) for index, (reason, detail) in bad.items()]
    images_of = {index: keys for index, keys in pairs.images_of.items() if index not in bad}
    return _Pairs(pairs.text_of, images_of, pairs.texts, pairs.paths, (*pairs.skipped, *skipped))


def _fill(
    store: FeatureStore,
    keys: Sequence[str],
    computation: Computation,
    on_shard: Callable[[Counts], None],
) -> int:
    return fill_store(
        store,
        keys,
        computation,
        on_shard,
        lambda num_missing: logger.info(
            "%s: %d distinct; %d to compute", computation.title, len(keys), num_missing
        ),
    )


def _cosines(
    pairs: _Pairs, num_records: int, images: FeatureStore, texts: FeatureStore
) -> NDArray[np.float64]:
    """The mean cosine of each record's images with its text (N,); NaN for records without."""
    cosines_N = np.full(num_records, np.nan)
    if not pairs.images_of:
        return cosines_N
    stored_images, stored_texts = (StoredFeatures(s.shards(), OUTPUT) for s in (images, texts))
    image_row = {key: row for row, key in enumerate(stored_images.keys)}
    text_row = {key: row for row, key in enumerate(stored_texts.keys)}
    triples = sorted(
        (text_row[pairs.text_of[index]], image_row[key], index)
        for index, keys in pairs.images_of.items()
        for key in keys
    )
    text_Q, image_Q, record_Q = np.array(triples, dtype=np.int64).T
    images_UD = _normalise(stored_images[slice(0, stored_images.shape[0])])
    cosines_Q = np.empty(len(triples))
    for start in range(0, stored_texts.shape[0], _BLOCK_ROWS):
        block_BD = _normalise(stored_texts[slice(start, start + _BLOCK_ROWS)])
        first, last = np.searchsorted(text_Q, [start, start + _BLOCK_ROWS])
        at = slice(first, last)
        cosines_Q[at] = np.einsum(
            "qd,qd->q", block_BD[text_Q[at] - start], images_UD[image_Q[at]], dtype=np.float64
        )
    sums_N = np.bincount(record_Q, cosines_Q, minlength=num_records)
    counts_N = np.bincount(record_Q, minlength=num_records)
    return np.divide(sums_N, counts_N, out=cosines_N, where=counts_N > 0)


def _normalise(rows_UD: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows_UD / np.linalg.norm(rows_UD, axis=1, keepdims=True)
