"""Rows of several whole records, filled up to a number of tokens: no padding at all.

In: each record's length and whether it has an image. Out: this process's rows of an epoch, each a
list of record numbers; `PackingCollator` lays them end to end.

Shape legend: N records.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from prism_tune.errors import UserError

_OPEN_ROWS = 64
"""More of them fill better but take longer; with 64, 99 % of LLaVA-like rows are used."""


class PackedBatchSampler(Sampler[list[int]]):
    """A batch sampler of rows, sharded, seeded and epoch-aware; a record is never cut.

    Records come in random order, each into the first of `_OPEN_ROWS` open rows that has room for
    it. Where none has, the fullest is closed and a new one opened. All rows have about the same
    number of tokens, so that no process waits for another.

    The rows are laid out once, so that every epoch has the same known number of them, a multiple
    of `world_size` (rows are halved until it is: every record comes exactly once an epoch, and none
    twice). An epoch shuffles the steps and deals the records of one length and modality anew over
    the places of that length, so that a record's neighbours change.

    Example, 2 processes, 12 tokens a row, records of 6 5 4 7 2 3 2 tokens

        rows      [6 5] [4 7] [2 3 2]              three, so the one of most records is halved
                  [6 5] [4 7] [2 3] [2]
        steps     ([6 5] [4 7])  ([2 3] [2])       one row for each process

    Args:
        lengths_N: tokens of each record, after cutting.
        has_image_N: which records have an image.
        tokens_per_batch: of a row.
        rank: this process.
        world_size: number of processes.
        seed: the same for every process.

    Raises:
        UserError: a record is longer than a row, or there are fewer records than processes.
    """

    def __init__(
        self,
        lengths_N: NDArray[np.integer],
        has_image_N: NDArray[np.bool_],
        tokens_per_batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        assert len(lengths_N) == len(has_image_N)
        longest = int(lengths_N.max())
        if longest > tokens_per_batch:
            raise UserError(
                f"training.tokens_per_batch: {tokens_per_batch}, but the longest record has "
                f"{longest} tokens; raise it, or lower data.max_length"
            )
        self._rank = rank
        self._seed = seed
        self._epoch = 0
        self._kinds_N = 2 * np.asarray(lengths_N) + has_image_N
        rows = _fill_rows(lengths_N, tokens_per_batch, np.random.default_rng(seed))
        _halve_largest(rows, world_size)
        self._steps = [rows[n : n + world_size] for n in range(0, len(rows), world_size)]

    def __len__(self) -> int:
        """Rows of this process an epoch: the same for every process and epoch."""
        return len(self._steps)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """This process's rows."""
        dealt_N = self._deal(np.random.default_rng([self._seed, self._epoch, 1]))
        random = np.random.default_rng([self._seed, self._epoch])
        for number in random.permutation(len(self._steps)):
            yield dealt_N[self._steps[number][self._rank]].tolist()

    def _deal(self, random: np.random.Generator) -> NDArray[np.int64]:
        """For each record the one that takes its place: of the same kind, each exactly once."""
        dealt_N = np.empty(len(self._kinds_N), dtype=np.int64)
        places_N = np.argsort(self._kinds_N, kind="stable")
        dealt_N[places_N] = np.lexsort((random.random(len(self._kinds_N)), self._kinds_N))
        return dealt_N


def _fill_rows(
    lengths_N: NDArray[np.integer], tokens_per_batch: int, random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Every record in one row, first fit in random order."""
    rows: list[list[int]] = [[] for _ in range(_OPEN_ROWS)]
    room = np.full(_OPEN_ROWS, tokens_per_batch)
    closed = []
    for number in random.permutation(len(lengths_N)).tolist():
        fitting = np.flatnonzero(room >= lengths_N[number])
        if len(fitting):
            place = fitting[0]
        else:
            place = room.argmin()
            closed.append(rows[place])
            rows[place], room[place] = [], tokens_per_batch
        rows[place].append(number)
        room[place] -= lengths_N[number]
    return [np.array(row, dtype=np.int64) for row in (*closed, *rows) if row]


def _halve_largest(rows: list[NDArray[np.int64]], world_size: int) -> None:
    """Make the number of rows a multiple of `world_size`; halves stay beside each other."""
    while len(rows) % world_size:
        largest = max(range(len(rows)), key=lambda number: len(rows[number]))
        row = rows[largest]
        if len(row) == 1:
            num_records = sum(len(row) for row in rows)
            raise UserError(
                f"training: {num_records} records cannot be dealt evenly to {world_size} "
                "processes; launch fewer"
            )
        middle = (len(row) + 1) // 2
        rows[largest : largest + 1] = [row[:middle], row[middle:]]
