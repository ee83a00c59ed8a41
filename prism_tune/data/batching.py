"""Which records a step takes: batches of one modality and of similar lengths, or packed rows.

In: each record's length and whether it has an image. Out, seeded and by epoch, each record exactly
once: record numbers in the order in which batches are dealt to the processes, or this process's
rows of several whole records, which `PackingCollator` lays end to end, without any padding.

Shape legend: N records.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from prism_tune.errors import UserError

_MEGABATCH_STEPS = 50
_FEWEST_MEGABATCHES = 4
_OPEN_ROWS = 64
"""More of them fill better but take longer; with 64, 99 % of LLaVA-like rows are used."""


class ModalityLengthSampler(Sampler[int]):
    """A seeded, epoch-aware order for a plain data loader under accelerate.

    A step is what all processes consume at once: `world_size` batches of `batch_size` records;
    process r takes batch r of each step, as accelerate deals batches. All records of a step have
    the same modality and similar lengths, so no process waits for another's long batch. Within
    that the order is random, and so is the order of the steps.

    What does not fill a step of its own modality is put together into mixed steps; only the last
    step of the epoch may be short. Every record comes exactly once. Where the number of records
    is no multiple of `world_size * batch_size`, accelerate completes the last step with records
    from the beginning of the epoch, so that no process is left waiting: at most
    `world_size * batch_size - 1` records are then seen twice (with `dataloader_drop_last` they are
    left out instead).

    Example, 2 processes, batches of 2, six image records (0-5) and three of text (6-8):

        lengths    9 3 8 2 7 1 | 5 6 4        shuffled: 3 0 5 2 1 4 | 8 6 7
        images     3 0 5 2 sorted by length -> 0 2 3 5   one full step; 1 4 are left over
        text       8 6 7                                 no full step; 8 6 7 are left over
        mixed      4 7 6 8 | 1                           left over, sorted: one full step, one short
        steps      shuffled, the short one last: [4 7 6 8] [0 2 3 5] [1]
        process 0  batches [4 7] [0 2] [1]
        process 1  batches [6 8] [3 5] [...]             completed by accelerate

    Args:
        lengths_N: tokens of each record.
        has_image_N: which records have an image; any mix, all or none.
        batch_size: records a process takes at once.
        world_size: number of processes (times accumulation steps, to group those as well).
        seed: of the order; the same for every process.
    """

    def __init__(
        self,
        lengths_N: NDArray[np.integer],
        has_image_N: NDArray[np.bool_],
        batch_size: int,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        assert len(lengths_N) == len(has_image_N)
        self._lengths_N = np.asarray(lengths_N)
        self._has_image_N = np.asarray(has_image_N, dtype=bool)
        self._step_records = batch_size * world_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths_N)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The numbers 0 to N - 1, each once."""
        random = np.random.default_rng([self._seed, self._epoch])
        steps: list[NDArray[np.int64]] = []
        left_over = []
        for modality in (True, False):
            shuffled = random.permutation(np.flatnonzero(self._has_image_N == modality))
            full = len(shuffled) - len(shuffled) % self._step_records
            steps += self._group(shuffled[:full])
            left_over.append(shuffled[full:])
        mixed = self._sort(np.concatenate(left_over))
        full = len(mixed) - len(mixed) % self._step_records
        steps += np.split(mixed[:full], full // self._step_records) if full else []
        order = [steps[number] for number in random.permutation(len(steps))]
        for step in [*order, mixed[full:]]:
            yield from step.tolist()

    def _group(self, shuffled: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Sort within megabatches of a random part each, and cut into steps."""
        num_steps = len(shuffled) // self._step_records
        megabatch_steps = max(1, min(_MEGABATCH_STEPS, num_steps // _FEWEST_MEGABATCHES))
        size = megabatch_steps * self._step_records
        steps = []
        for start in range(0, len(shuffled), size):
            ordered = self._sort(shuffled[start : start + size])
            steps += np.split(ordered, len(ordered) // self._step_records)
        return steps

    def _sort(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Longest first; equal lengths keep their (random) order."""
        return numbers[np.argsort(-self._lengths_N[numbers], kind="stable")]


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
