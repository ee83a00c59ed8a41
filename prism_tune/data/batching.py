"""Which records a step takes: of one modality and dealt evenly by length, or packed rows.

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

_OPEN_ROWS = 64
"""More of them fill better but take longer; with 64, 99 % of LLaVA-like rows are used."""


class ModalityLengthSampler(Sampler[int]):
    """LLaVA's grouping: each step is drawn at random within one modality and dealt evenly.

    Source: `LengthGroupedSampler(group_by_modality=True)` of llava/train/llava_trainer.py.

    A step is what one update consumes: `num_micro_batches` (processes x accumulation) batches of
    `batch_size` records. Its records are drawn at random, all with image or all without; within it
    the longest go first, each to the micro-batch of the fewest tokens so far, so that no process
    waits for another's long batch. Records are never sorted beyond their step: a step that held
    only long or only short answers would weigh sources against each other. Which records a step
    has depends on `batch_size * num_micro_batches` alone, so that any split of one global batch
    into processes and accumulation trains on the same steps. Micro-batch b of a step goes to
    process b modulo the number of processes, as accelerate deals batches.

    What does not fill a step of its own modality comes at the end, as LLaVA has it: at most one
    step mixes the modalities, and only the very last may be short. Every record comes exactly once.
    Where the number of records is no multiple of `batch_size` times processes, accelerate completes
    the last batches with records from the beginning of the epoch, so that no process is left
    waiting (with `dataloader_drop_last` they are left out instead).

    Example, 2 processes, batches of 2, six image records (0-5) and three of text (6-8):

        lengths    9 3 8 2 7 1 | 5 6 4        shuffled: 3 0 5 2 1 4 | 8 6 7
        images     3 0 5 2 full; longest first 0 2 3 5: 0 opens [0], 2 opens [2], 3 joins 2 (8 < 9),
                   5 joins 0: batches [0 5] and [2 3]; 1 4 are left over
        text       8 6 7 no full step, left over
        mixed      the fewer first: 1 4 and then 8 6, longest first 4 6 8 1: batches [4 1] and [6 8]
        short      7
        process 0  batches [0 5] [4 1] [7 ...]        completed by accelerate
        process 1  batches [2 3] [6 8] [...]

    Args:
        lengths_N: tokens of each record.
        has_image_N: which records have an image; any mix, all or none.
        batch_size: records a process takes at once.
        num_micro_batches: processes times accumulation steps.
        seed: of the order; the same for every process.
    """

    def __init__(
        self,
        lengths_N: NDArray[np.integer],
        has_image_N: NDArray[np.bool_],
        batch_size: int,
        num_micro_batches: int = 1,
        seed: int = 0,
    ) -> None:
        assert len(lengths_N) == len(has_image_N)
        self._lengths_N = np.asarray(lengths_N)
        self._has_image_N = np.asarray(has_image_N, dtype=bool)
        self._batch_size = batch_size
        self._step_records = batch_size * num_micro_batches
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
        for has_image in (True, False):
            shuffled = random.permutation(np.flatnonzero(self._has_image_N == has_image))
            num_full = len(shuffled) // self._step_records
            *full, rest = np.split(shuffled, self._step_records * np.arange(1, num_full + 1))
            steps += full
            left_over.append(rest)
        last = np.concatenate(sorted(left_over, key=len))  # the short step is then of one modality
        order = [steps[number] for number in random.permutation(len(steps))]
        for step in [*order, last[: self._step_records], last[self._step_records :]]:
            yield from self._deal(step)

    def _deal(self, step: NDArray[np.int64]) -> list[int]:
        """The records of a step, micro-batch by micro-batch, of about equal tokens each."""
        longest_first = step[np.argsort(-self._lengths_N[step], kind="stable")].tolist()
        num_batches = -(-len(step) // self._batch_size)
        batches: list[list[int]] = [[] for _ in range(num_batches)]
        room = [self._batch_size] * num_batches
        if num_batches:
            room[-1] -= num_batches * self._batch_size - len(step)
        tokens = [0] * num_batches
        for number in longest_first:
            lightest = min((b for b in range(num_batches) if room[b]), key=tokens.__getitem__)
            batches[lightest].append(number)
            room[lightest] -= 1
            tokens[lightest] += int(self._lengths_N[number])
        return [number for batch in batches for number in batch]


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
        rank: int,
        world_size: int,
        seed: int,
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
