"""The loss of each source of the pool, for the log: examples that know their source, and sums.

In: batches that carry the number of each record's source, and the logits at the labels. Out: the
mean loss per labelled token and source since the last log line, over all processes.

Shape legend: B records of a batch, L tokens, K positions with a label, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

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
    """Any collator; the sources' numbers pass beside it, as a vector of B."""

    def __init__(self, collate: Callable[[Sequence[dict[str, Tensor]]], dict[str, Tensor]]) -> None:
        self._collate = collate

    def __call__(self, examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The batch."""
        numbers_B = torch.stack([example[_KEY] for example in examples])
        bare = [{k: v for k, v in example.items() if k != _KEY} for example in examples]
        return {**self._collate(bare), _KEY: numbers_B}


class SourceLosses:
    """Sums of losses and labelled tokens of each source, on this process until they are read."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._sums = torch.zeros(2, len(names), dtype=torch.float64)

    @torch.no_grad()
    def add(self, numbers_B: Tensor, keep_BL: Tensor, labels_K: Tensor, logits_KV: Tensor) -> None:
        """Count a batch.

        Args:
            numbers_B: source of each record.
            keep_BL: the positions that predict a label.
            labels_K: those labels.
            logits_KV: the logits at these positions.
        """
        losses_K = functional.cross_entropy(
            logits_KV.reshape(len(labels_K), -1).float(), labels_K, reduction="none"
        )
        sources_K = numbers_B[:, None].expand(keep_BL.shape)[keep_BL]
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
    """Remove the sources' numbers from a batch, so that the model does not see them."""
    numbers_B: Tensor | None = inputs.pop(_KEY, None)
    return numbers_B
