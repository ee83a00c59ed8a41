"""One number for each of many records, found by several processes: a block of records at a time.

Rendering a chat template and tokenising take 665K records minutes on one core. What is found does
not depend on how many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from prism_tune.errors import UserError
from prism_tune.run.worker_processes import as_it_is, end_unheard_workers

_RECORDS = 1000  # what a tokenizer is given at once

Find = Callable[[Sequence[int]], NDArray[Any]]
"""Records in, an array with a row for each out; picklable, for processes that are not forked."""


def find_of_all(find: Find, indices: Sequence[int], num_workers: int) -> NDArray[Any]:
    """What `find` says of all records, in their order.

    Args:
        find: of a block of records.
        indices: which records.
        num_workers: how many processes; none is started for a single block.

    Raises:
        UserError: that of the first block that has one.
    """
    blocks = _Blocks(find, indices)
    if num_workers == 0 or len(blocks) < 2:
        found = [find(blocks.records(number)) for number in range(max(1, len(blocks)))]
        return np.concatenate(found)
    loader = DataLoader(
        blocks,
        batch_size=None,
        num_workers=min(num_workers, len(blocks)),
        collate_fn=as_it_is,
    )
    found = []
    for block in end_unheard_workers(loader):
        if isinstance(block, UserError):
            raise block
        found.append(block)
    return np.concatenate(found)


class _Blocks(Dataset[Any]):
    """What is found of each block; a mistake of the user is handed over, to be raised there."""

    def __init__(self, find: Find, indices: Sequence[int]) -> None:
        self._find = find
        self._indices = indices

    def __len__(self) -> int:
        return -(-len(self._indices) // _RECORDS)

    def records(self, number: int) -> Sequence[int]:
        return self._indices[number * _RECORDS : (number + 1) * _RECORDS]

    def __getitem__(self, number: int) -> Any:
        try:
            return self._find(self.records(number))
        except UserError as error:
            return error
