"""Score and verdict of every record of a pool, as a finished selection wrote them.

Shape legend: N records of the pool, K kept records.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prism_tune.run.folder import RunDir
from prism_tune.run.subset_file import read_scores


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

    @cached_property
    def kept(self) -> pa.ChunkedArray:
        """The uids of kept image records: a text-only one is kept by every selector."""
        return self.uids.filter(pa.array(self.selected_N & self.is_ranked_N))

    @cached_property
    def ranked(self) -> pa.ChunkedArray:
        """The uids of records that have a score."""
        return self.uids.filter(pa.array(self.is_ranked_N))

    @cached_property
    def is_ranked_N(self) -> NDArray[np.bool_]:
        """Which records have a score."""
        return np.isfinite(self.score_N)

    @cached_property
    def is_cut_N(self) -> NDArray[np.bool_]:
        """Which of them the cut decided on: not those that a list had kept."""
        return self.is_ranked_N & ~self.reasons.mask("must_keep")

    def uid(self, row: int) -> str:
        """The uid of a row."""
        value: str = self.uids[row].as_py()
        return value

    def source_shares(self) -> dict[str, float]:
        """Each source's share of all kept records."""
        codes_K = self.sources.codes_N[self.selected_N]
        shares = np.bincount(codes_K, minlength=len(self.sources.names)) / max(len(codes_K), 1)
        return dict(zip(self.sources.names, shares.tolist(), strict=True))


def read_records(run: RunDir) -> RecordTable:
    """The records of a finished selection.

    Raises:
        UserError: scores.parquet cannot be read, or is not as a selection writes it.
    """
    table = read_scores(run)
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
