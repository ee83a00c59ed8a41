"""The order of an epoch: batches of one modality and of similar lengths.

In: each record's length and whether it has an image. Out: the record numbers of an epoch, each
exactly once, in the order in which consecutive batches are dealt to the processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

_MEGABATCH_STEPS = 50
_FEWEST_MEGABATCHES = 4


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
