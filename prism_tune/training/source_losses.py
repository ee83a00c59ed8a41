"""The loss of each source of the pool, for the log: examples that know their source, and sums.

In: batches that carry the number of each record's source, and the losses at the labels. Out: the
mean loss per labelled token and source since the last log line, over all processes.

Shape legend: B rows of a batch, L tokens, S records of a batch, K tokens with a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset

from prism_tune.data.collator import first_tokens
from prism_tune.data.dataset import TuningDataset

_KEY = "source_numbers"


class SourcedExamples(Dataset[dict[str, Tensor]]):
    """A dataset whose examples carry the number of their source."""

    def __init__(self, examples: TuningDataset) -> None:
        self.lengths_N = examples.lengths_N
        self.has_image_N = examples.has_image_N
        self._examples = examples
        pool_sources = examples.pool.sources
        sources = [pool_sources[index] for index in examples.indices]
        self.names = sorted(set(sources))
        numbers = {name: number for number, name in enumerate(self.names)}
        self._numbers_N = torch.tensor([numbers[source] for source in sources])

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """The example, with its source's number."""
        return {**self._examples[number], _KEY: self._numbers_N[number]}


class SourcedCollator:
    """Any collator; the sources' numbers pass beside it, as a vector of S."""

    def __init__(self, collate: Callable[[Sequence[dict[str, Tensor]]], dict[str, Tensor]]) -> None:
        self._collate = collate

    def __call__(self, examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The batch."""
        numbers_S = torch.stack([example[_KEY] for example in examples])
        bare = [{k: v for k, v in example.items() if k != _KEY} for example in examples]
        return {**self._collate(bare), _KEY: numbers_S}


class SourceLosses:
    """Sums of losses and labelled tokens of each source, on this process until they are read."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._sums = torch.zeros(2, len(names), dtype=torch.float64)

    def add(self, sources_K: Tensor, losses_K: Tensor) -> None:
        """Count a batch: the number of the source and the loss of each labelled token."""
        self._sums = self._sums.to(losses_K.device)
        self._sums[0].index_add_(0, sources_K, losses_K.double())
        self._sums[1].index_add_(0, sources_K, torch.ones_like(losses_K, dtype=torch.float64))

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """`loss/<source>` of each source seen since the last call; called on every rank."""
        sums = accelerator.gather(self._sums.to(accelerator.device)[None]).sum(dim=0).cpu()
        self._sums = torch.zeros_like(self._sums)
        return {
            f"loss/{name}": round(float(total / count), 4)
            for name, total, count in zip(self._names, *sums, strict=True)
            if count
        }


def take_sources(inputs: dict[str, Any]) -> Tensor | None:
    """Remove the records' sources from a batch, so that the model does not see them.

    Returns:
        The number of each token's source, B x L; None where the batch does not know.
    """
    numbers_S: Tensor | None = inputs.pop(_KEY, None)
    if numbers_S is None:
        return None
    begins_BL = first_tokens(inputs)
    records_BL = (begins_BL.flatten().cumsum(0) - 1).view(begins_BL.shape)
    # The dummy image of a packed row is a record more; it has no label, so any source will do.
    return numbers_S[records_BL.clamp(max=len(numbers_S) - 1)]
