"""One run as the report sees it: its files, read when they are asked for; no model, no torch.

Beside what tables read of a finished run: selection/ (scores.parquet, evidence/features/), the
pool, and training/log.jsonl. A stage that has not run is None or empty, never an error.

Shape legend: N records of the pool, U feature rows, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prism_tune.data.records import Pool, open_pool
from prism_tune.errors import UserError
from prism_tune.features.shards import RecordFeatures, StoredRows, list_shards, read_shard
from prism_tune.results.overlap import Kept
from prism_tune.results.runs import FinishedRun
from prism_tune.run.stage import Stage

Keep = Literal["low", "middle", "high"]

_COLUMNS = ("uid", "id", "source", "score", "rank", "selected", "reason")


@dataclass(frozen=True)
class Categories:
    """A column of few distinct strings: `names[codes_N[n]]`."""

    names: tuple[str, ...]
    codes_N: NDArray[np.int32]

    def __getitem__(self, row: int) -> str:
        return self.names[self.codes_N[row]]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where the column says `name`, (N,)."""
        if name not in self.names:
            return np.zeros(len(self.codes_N), dtype=bool)
        return self.codes_N == self.names.index(name)


@dataclass(frozen=True)
class RecordTable:
    """`scores.parquet`: row n is record n of the pool.

    `score_N` is NaN and `rank_N` 0 where a record is not ranked (text-only, skipped).
    """

    uids: pa.ChunkedArray
    ids: pa.ChunkedArray
    sources: Categories
    reasons: Categories
    score_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    selected_N: NDArray[np.bool_]
    feature_keys: pa.ChunkedArray | None

    def __len__(self) -> int:
        return len(self.selected_N)

    @property
    def kept(self) -> Kept:
        """The kept records that were ranked: text-only ones are kept by every selector."""
        uids = self.uids.filter(pa.array(self.selected_N & self.is_ranked_N))
        return Kept(uids, int(self.is_ranked_N.sum()))

    @property
    def is_ranked_N(self) -> NDArray[np.bool_]:
        """Which records have a score."""
        return np.isfinite(self.score_N)

    def uid(self, row: int) -> str:
        """The uid of a row."""
        value: str = self.uids[row].as_py()
        return value


class ReportRun(FinishedRun):
    """A run folder, read lazily: with the records and features behind its selection."""

    @cached_property
    def records(self) -> RecordTable | None:
        """Score and verdict of every record; None unless the selection finished."""
        path = self.run.selection / "scores.parquet"
        if self.manifest is None or not path.exists():
            return None
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: cannot be read as parquet: {error}") from error
        missing = [name for name in _COLUMNS if name not in table.column_names]
        if missing:
            config = Stage(self.run.selection).config_path
            raise UserError(
                f"{path}: no column {', '.join(missing)}; "
                f"write it anew with `prism-tune select {config} --force`"
            )
        return RecordTable(
            uids=table["uid"],
            ids=table["id"],
            sources=_categories(table["source"]),
            reasons=_categories(table["reason"]),
            score_N=table["score"].cast(pa.float64()).fill_null(np.nan).to_numpy(),
            rank_N=table["rank"].fill_null(0).to_numpy(),
            selected_N=table["selected"].to_numpy(),
            feature_keys=table["feature"] if "feature" in table.column_names else None,
        )

    @cached_property
    def features(self) -> RecordFeatures | None:
        """The features behind the scores; None where the scorer needs none or they are gone."""
        paths = list_shards(self.run.features)
        if self.records is None or self.records.feature_keys is None or not paths:
            return None
        values_UD = StoredRows([read_shard(path) for path in paths])
        place = pc.index_in(self.records.feature_keys, value_set=pa.array(values_UD.keys))
        row_N = place.fill_null(-1).to_numpy().astype(np.int64)
        return RecordFeatures(values_UD, row_N) if (row_N >= 0).any() else None

    @property
    def keep(self) -> Keep:
        """Which scores the selection kept: the config's choice, or the method's own."""
        keep: Keep = self.config.selection.keep or (self.manifest or {}).get("keep") or "low"
        return keep

    @cached_property
    def pool(self) -> Pool:
        """The records' texts and image paths; row n is row n of `records`.

        Raises:
            UserError: the pool's file is gone, or is not the one that was scored.
        """
        data = (Stage(self.run.selection).config() or self.config).data
        pool = open_pool(data)
        scored = (self.manifest or {}).get("pool_fingerprint")
        if scored is not None and pool.fingerprint != scored:
            raise UserError(
                f"{data.records}: has changed since it was scored; "
                f"run `prism-tune select {Stage(self.run.selection).config_path}` again"
            )
        return pool

    @cached_property
    def training_log(self) -> list[dict[str, Any]]:
        """The logged steps; a last line that a kill cut short is left out."""
        path = self.run.training / "log.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().splitlines(keepends=True)
        return [orjson.loads(line) for line in lines if line.endswith(b"\n")]


def _categories(column: pa.ChunkedArray) -> Categories:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=lambda code: str(names[code]))
    place = np.empty(len(names), dtype=np.int32)
    place[order] = np.arange(len(names), dtype=np.int32)
    codes_N = place[encoded.indices.to_numpy()] if names else np.zeros(0, dtype=np.int32)
    return Categories(tuple(str(names[code]) for code in order), codes_N)
