"""Sentence embeddings of records out of the model's table of token embeddings: `features: text`.

Paper: Arora, Liang and Ma, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings", 2017,
https://openreview.net/forum?id=SyK00v5xx.
Texts of records go in, questions and answers without placeholders; of each distinct text the mean
of a / (a + p(w)) x embedding(w) over its tokens w comes out, a = 1e-3, p(w) the share of w among
all tokens of the pool; and what the rows have in common, their first singular direction, is taken
off when they are read. No layer is run: tokenising, and a look into a table.

Shape legend: N records, U distinct texts, L tokens of a text, V vocabulary, D width.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.features.shards import DirectedRows, Shard, StoredRows
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.processor import load_model_tokenizer
from prism_tune.run.cached import cached_array
from prism_tune.run.fingerprints import fingerprint
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.embeddings.image_text import record_text
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.filling import Computation, fill
from prism_tune.selection.evidence.runner import Rows
from prism_tune.selection.evidence.source import (
    Evidence,
    EvidenceSource,
    Gathering,
    depends_on,
    find_measured,
)
from prism_tune.selection.evidence.store import EvidenceStore
from prism_tune.selection.reference.read import load_shallow

_VERSION = 1
_SMOOTHING = 1e-3  # the paper's a
_TEXTS_PER_CALL = 1000
_BLOCK_ROWS = 4096


class SifTexts(Dataset[Encoded]):
    """Encodes texts as the ids of their tokens."""

    def __init__(self, texts: Sequence[str], tokenizer: Any) -> None:
        self._texts = texts
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, number: int) -> Encoded:
        """One text."""
        ids = torch.tensor(count_ids([self._texts[number]], self._tokenizer)[0], dtype=torch.long)
        return Encoded({"input_ids": ids}, torch.ones(len(ids)))


class SifEmbeddings:
    """Gives the weighted mean of the embeddings of every text (a `Runner`).

    Args:
        table_VD: the embeddings.
        weights_V: a / (a + p) of every token.
    """

    def __init__(self, table_VD: torch.Tensor, weights_V: torch.Tensor) -> None:
        self.width = int(table_VD.shape[1])
        self.dtype = torch.float32
        self._table_VD = table_VD
        self._weights_V = weights_V.to(table_VD.device, torch.float32)

    def estimate_flops(self, batch: Sequence[Encoded]) -> float:
        """Two for every number that is added up."""
        return 2.0 * self.width * sum(len(unit.pooled_L) for unit in batch)

    @torch.inference_mode()
    def run_batch(self, batch: Sequence[Encoded]) -> Rows:
        """(B, D); zero for a text without tokens."""
        rows = []
        for unit in batch:
            ids_L = unit.inputs["input_ids"].to(self._table_VD.device)
            weighted_LD = self._table_VD[ids_L].float() * self._weights_V[ids_L, None]
            rows.append(weighted_LD.sum(dim=0) / max(len(ids_L), 1))
        return [torch.stack(rows)]


def compute_text(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
    """The embedding of every record's text."""
    began = time.perf_counter()
    config, pool = gathering.config, gathering.pool
    tokenizer = load_model_tokenizer(config.model)
    described = {**_depends(config), "pool": pool.fingerprint}
    store = EvidenceStore(config.output_dir, TEXT_SIF.name, described)
    key_of, first = _find_texts(gathering, left_out)

    @cache
    def load_runner() -> SifEmbeddings:
        device = pick_device()
        dtype = resolve_dtype(config.selection.dtype, device)
        model = load_shallow(config, 1, dtype=dtype, device=device)
        table: Any = model.get_input_embeddings()
        counts_V = frequencies(pool, tokenizer, config.output_dir, len(table.weight))
        return SifEmbeddings(table.weight.detach(), torch.from_numpy(weigh(counts_V)))

    computation = Computation(
        title="texts",
        load_runner=load_runner,
        encode=lambda keys: SifTexts([record_text(pool[first[key]]) for key in keys], tokenizer),
        tokens_per_batch=config.selection.tokens_per_batch,
        num_workers=config.data.num_workers,
        began=began,
    )
    reading = fill([store], sorted(first), computation, gathering)
    row_of = {key: n for n, key in enumerate(key for s in reading.files for key in s.keys)}
    row_N = np.full(len(pool), -1, dtype=np.int64)
    for index, key in key_of.items():
        row_N[index] = row_of[key]
    values_UD = _without_common(reading.files, row_N) if first else None
    return Evidence(values_UD, row_N, dict(left_out), (reading,), {"prompt": "text"})


def _depends(config: Config) -> dict[str, Any]:
    """What a row depends on, but for the pool."""
    depends = depends_on(config, "features", _VERSION)
    of_states = ("selection.layer", "selection.pooling")
    return {key: value for key, value in depends.items() if key not in of_states}


TEXT_SIF: EvidenceSource = EvidenceSource("text_sif", _depends, compute_text)
"""Read beside the features by kernels of images and texts, and to predict gains."""


def count_ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The ids of some texts' tokens; names of control tokens are text."""
    options = {"add_special_tokens": False, "split_special_tokens": True}
    ids: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
    return ids


def frequencies(pool: Pool, tokenizer: Any, output_dir: str, vocabulary: int) -> NDArray[np.int64]:
    """How often each token stands in the pool's texts, (V,); kept beside the evidence."""
    described = ["tokens", pool.fingerprint, vocabulary, fingerprint(sorted(tokenizer.get_vocab()))]
    path = Path(output_dir) / "evidence" / "prompts" / f"{fingerprint(described)[:32]}.npy"

    def count() -> NDArray[np.int64]:
        counts_V = np.zeros(vocabulary, dtype=np.int64)
        for start in range(0, len(pool), _TEXTS_PER_CALL):
            stop = min(start + _TEXTS_PER_CALL, len(pool))
            texts = [record_text(pool[index]) for index in range(start, stop)]
            ids = [token for of_text in count_ids(texts, tokenizer) for token in of_text]
            counts_V += np.bincount(ids, minlength=vocabulary)
        return counts_V

    return cached_array(path, count, vocabulary, "int64")


def weigh(counts_V: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight a / (a + p) of every token; 1 for one that is nowhere."""
    result: NDArray[np.float64] = _SMOOTHING / (_SMOOTHING + counts_V / max(counts_V.sum(), 1))
    return result


def _find_texts(
    gathering: Gathering, left_out: Mapping[int, Skipped]
) -> tuple[dict[int, str], dict[str, int]]:
    """The key of each record's text, and the first record of each key."""
    pool = gathering.pool
    key_of: dict[int, str] = {}
    first: dict[str, int] = {}
    for index in np.flatnonzero(find_measured(gathering.config, pool)).tolist():
        if index not in left_out:
            text = record_text(pool[index])
            key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            key_of[index] = key
            first.setdefault(key, index)
    return key_of, first


def _without_common(shards: Sequence[Shard], row_N: NDArray[np.int64]) -> StoredRows:
    """The rows less their part along the first singular direction, a row counted as it occurs."""
    rows_UD = StoredRows(shards)
    num_rows, width = rows_UD.shape
    counts_U = np.bincount(row_N[row_N >= 0], minlength=num_rows)
    moment_DD = np.zeros((width, width))
    for start in range(0, num_rows, _BLOCK_ROWS):
        block_BD = rows_UD[slice(start, start + _BLOCK_ROWS)].astype(np.float64)
        moment_DD += (block_BD * counts_U[start : start + len(block_BD), None]).T @ block_BD
    return DirectedRows(shards, np.linalg.eigh(moment_DD)[1][:, -1])
