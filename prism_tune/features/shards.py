"""Reading evidence from disk: finished shards, and their rows as one matrix, block by block.

The files that `selection/evidence/store.py` writes go in; rows come out, without torch:
`shard-<hash>.safetensors` holds `rows`: float32 (rows, D), and as metadata the rows' keys, the
failed ones, counts, and what computing them has taken.

Shape legend: U rows of all shards, N records of a pool, D width of a row.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from prism_tune.errors import UserError
from prism_tune.features.row_blocks import RowBlocks

_LENGTH_BYTES = 8  # of the header, in front of it (the format of safetensors)
_BLOCK_BYTES = 1 << 20
_OPEN_SHARDS = 16  # their mapped pages count as the process's memory; eight threads read at a time


@dataclass(frozen=True)
class Shard:
    """A finished shard: its file, the keys of its rows, and what computing them has taken.

    Attributes:
        failed: key -> (reason, detail); its row is NaN.
        counts: images, tokens, flops.
        seconds: of the one process that computed it, loading the model included for its first.
        device: what that process ran on.
        num_devices: the processes that worked at the same time.
        digest: of its rows (see `digest_rows`).
    """

    path: Path
    keys: tuple[str, ...]
    failed: Mapping[str, Sequence[str]]
    counts: Mapping[str, float]
    seconds: float
    device: str
    num_devices: int
    digest: str

    def is_sound(self) -> bool:
        """Whether its rows are those that were written; reads the file once."""
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb") as file:
            header = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            file.seek(header, os.SEEK_CUR)
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest() == self.digest


def digest_rows(rows_UD: NDArray[np.float32]) -> str:
    """BLAKE2b of the rows as they lie in the file, behind its header."""
    return hashlib.blake2b(
        np.ascontiguousarray(rows_UD).reshape(-1).data, digest_size=16
    ).hexdigest()


def list_shards(folder: Path) -> list[Path]:
    """The files of the finished shards, by name."""
    return sorted(folder.glob("shard-*.safetensors"))


def read_shard(path: Path) -> Shard:
    """What a shard holds, without its rows.

    Raises:
        FileNotFoundError: there is none (any more).
        UserError: not a shard.
    """
    try:
        with safe_open(path, framework="np") as file:
            content = json.loads((file.metadata() or {})["content"])
        content["keys"] = tuple(content["keys"])
        return Shard(path=path, **content)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a shard of evidence ({error}); delete it and rerun"
        ) from error


class StoredRows:
    """The rows of all shards as one matrix that is read block by block (a `RowBlocks`).

    Args:
        shards: finished shards, at least one.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._ends = list(accumulate(len(shard.keys) for shard in shards))
        self._open = lru_cache(maxsize=_OPEN_SHARDS)(partial(safe_open, framework="np"))
        width = self._open(shards[0].path).get_slice("rows").get_shape()[1]
        self.shape = (self._ends[-1], int(width))

    @cached_property
    def keys(self) -> list[str]:
        """The key of every row."""
        return [key for shard in self._shards for key in shard.keys]

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """A block of rows."""
        start, stop, _ = rows.indices(self.shape[0])
        parts = []
        number = bisect_right(self._ends, start)
        while start < stop:
            offset = self._ends[number] - len(self._shards[number].keys)
            end = min(stop, self._ends[number])
            values = self._open(self._shards[number].path).get_slice("rows")
            parts.append(values[start - offset : end - offset])
            start, number = end, number + 1
        if len(parts) == 1:
            return np.asarray(parts[0])
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), dtype=np.float32)


class DirectedRows(StoredRows):
    """The rows less their part along one direction.

    Args:
        shards: finished shards, at least one.
        direction_D: of length 1.
    """

    def __init__(self, shards: Sequence[Shard], direction_D: NDArray[np.float64]) -> None:
        super().__init__(shards)
        self._direction_D = direction_D

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """A block of rows."""
        block_BD = super().__getitem__(rows)
        along_B = block_BD @ self._direction_D
        return (block_BD - np.outer(along_B, self._direction_D)).astype(np.float32)


class SomeRows:
    """Some rows of a matrix as a matrix of their own (a `RowBlocks`), read in stretches.

    Args:
        values_UD: the matrix.
        rows: which, ascending, each once.
    """

    def __init__(self, values_UD: RowBlocks, rows: NDArray[np.int64]) -> None:
        self._values_UD, self._rows = values_UD, rows
        self.dtype = values_UD.dtype
        self.shape = (len(rows), values_UD.shape[1])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """A block of rows."""
        chosen = self._rows[rows]
        found = np.empty((len(chosen), self.shape[1]), dtype=self.dtype)
        for start, stop in _runs(chosen):
            found[start:stop] = self._values_UD[int(chosen[start]) : int(chosen[stop - 1]) + 1]
        return found


@dataclass(frozen=True)
class RecordFeatures:
    """Features of records; `row_N` is each record's row of `values_UD`, -1 for none."""

    values_UD: RowBlocks
    row_N: NDArray[np.int64]

    @classmethod
    def of_records(cls, values_UD: RowBlocks, row_N: NDArray[np.int64]) -> RecordFeatures:
        """Without rows of no record, which a store has where its shards are another pool's too."""
        rows = np.unique(row_N[row_N >= 0])
        place_N = np.where(row_N >= 0, np.searchsorted(rows, row_N), -1)
        return cls(SomeRows(values_UD, rows), place_N)

    def read(self, records: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features of some records that have one, (len(records), D), in their order."""
        rows, back = np.unique(self.row_N[records], return_inverse=True)
        found: NDArray[np.float32] = SomeRows(self.values_UD, rows)[:]
        return found[back]


def _runs(rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches [start, stop) of sorted rows that follow on one another."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    stretches = np.split(np.arange(len(rows)), cuts)
    return [(int(part[0]), int(part[-1]) + 1) for part in stretches if len(part)]
