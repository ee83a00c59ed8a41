"""Rows of several whole records, filled up to a number of tokens: no padding at all.

In: each record's length and whether it has an image. Out: this process's rows of an epoch, each a
list of record numbers; `PackingCollator` lays them end to end.

Shape legend: N records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.data.token_budget import TokenBudgetBatchSampler

_OPEN_ROWS = 64
"""More of them fill better but take longer; with 64, 99 % of LLaVA-like rows are used."""


class PackedBatchSampler(TokenBudgetBatchSampler):
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

    Args and errors: those of `TokenBudgetBatchSampler`; `tokens_per_batch` are a row's.
    """

    def __init__(
        self,
        lengths_N: NDArray[np.integer],
        has_image_N: NDArray[np.bool_],
        tokens_per_batch: int,
        **options: Any,
    ) -> None:
        super().__init__(lengths_N, has_image_N, tokens_per_batch, **options)
        self._kinds_N = 2 * np.asarray(lengths_N) + has_image_N

    def __iter__(self) -> Iterator[list[int]]:
        """This process's rows."""
        dealt_N = self._deal(np.random.default_rng([self._seed, self._epoch, 1]))
        for row in super().__iter__():
            yield dealt_N[row].tolist()

    def _deal(self, random: np.random.Generator) -> NDArray[np.int64]:
        """For each record the one that takes its place: of the same kind, each exactly once."""
        dealt_N = np.empty(len(self._kinds_N), dtype=np.int64)
        places_N = np.argsort(self._kinds_N, kind="stable")
        dealt_N[places_N] = np.lexsort((random.random(len(self._kinds_N)), self._kinds_N))
        return dealt_N

    def _compose(
        self,
        lengths_N: NDArray[np.integer],
        has_image_N: NDArray[np.bool_],
        tokens_per_batch: int,
        random: np.random.Generator,
    ) -> list[NDArray[np.int64]]:
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
