"""Batches of as many records as a number of tokens allows, padding included.

In: each record's length and whether it has an image. Out: this process's batches of an epoch, each
a list of record numbers. Long records come in small batches and short ones in large, so that memory
is even and no batch is mostly padding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from prism_tune.errors import UserError


class TokenBudgetBatchSampler(Sampler[list[int]]):
    """A batch sampler that is sharded, seeded and epoch-aware.

    Records are sorted by length within their modality and cut into batches whose longest record
    times their number stays within the budget. What all processes take at once, a step, is
    `world_size` neighbours of that order: of like length, and of one modality but for at most one
    step. Where the number of batches is no multiple of `world_size`, the largest are halved until
    it is, so that every record comes exactly once an epoch, and none twice.

    Batches are composed once, records of one length in random order; an epoch shuffles the steps.

    Example, 2 processes, 12 tokens a batch: images of 6 5 4 2 2 tokens, texts of 3 3

        batches   [6 5] [4 2 2] | [3 3]        three, so the largest is halved
                  [6 5] [4 2] [2] | [3 3]
        steps     ([6 5] [4 2])  ([2] [3 3])   one for each process

    Args:
        lengths_N: tokens of each record, after cutting.
        has_image_N: which records have an image.
        tokens_per_batch: of one process's batch.
        rank: this process.
        world_size: number of processes.
        seed: the same for every process.

    Raises:
        UserError: a record is longer than the budget, or there are fewer records than processes.
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
        random = np.random.default_rng(seed)
        batches = self._compose(lengths_N, has_image_N, tokens_per_batch, random)
        _halve_largest(batches, world_size)
        self._steps = [batches[n : n + world_size] for n in range(0, len(batches), world_size)]

    def __len__(self) -> int:
        """Batches of this process an epoch: the same for every process and epoch."""
        return len(self._steps)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """This process's batches."""
        random = np.random.default_rng([self._seed, self._epoch])
        for number in random.permutation(len(self._steps)):
            yield self._steps[number][self._rank].tolist()

    def _compose(
        self,
        lengths_N: NDArray[np.integer],
        has_image_N: NDArray[np.bool_],
        tokens_per_batch: int,
        random: np.random.Generator,
    ) -> list[NDArray[np.int64]]:
        """Every record in one batch, neighbours alike."""
        batches: list[NDArray[np.int64]] = []
        for modality in (True, False):
            numbers = random.permutation(np.flatnonzero(has_image_N == modality))
            ordered = numbers[np.argsort(-lengths_N[numbers], kind="stable")]
            batches += _fill(ordered, lengths_N, tokens_per_batch)
        return batches


def _fill(
    ordered: NDArray[np.int64], lengths_N: NDArray[np.integer], tokens_per_batch: int
) -> list[NDArray[np.int64]]:
    """Cut an order, longest first, into batches: the first record's length times their number."""
    batches = []
    start = 0
    while start < len(ordered):
        num_records = tokens_per_batch // max(1, int(lengths_N[ordered[start]]))
        batches.append(ordered[start : start + num_records])
        start += num_records
    return batches


def _halve_largest(batches: list[NDArray[np.int64]], world_size: int) -> None:
    """Make the number of batches a multiple of `world_size`; halves stay beside each other."""
    while len(batches) % world_size:
        largest = max(range(len(batches)), key=lambda number: len(batches[number]))
        batch = batches[largest]
        if len(batch) == 1:
            num_records = sum(len(batch) for batch in batches)
            raise UserError(
                f"training: {num_records} records cannot be dealt evenly to {world_size} "
                "processes; launch fewer"
            )
        middle = (len(batch) + 1) // 2
        batches[largest : largest + 1] = [batch[:middle], batch[middle:]]
