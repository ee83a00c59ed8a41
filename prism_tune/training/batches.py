"""The loader of token-budget batches: a dataset in, this process's batches out.

Accelerate deals batches of a fixed number of records only; these are dealt by their own sampler, so
that its loader is a plain one of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from prism_tune.config import Config
from prism_tune.data.token_budget import TokenBudgetBatchSampler


class TokenBudgetLoader(DataLoader[Any]):
    """A plain loader that passes the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        sampler: Any = self.batch_sampler
        sampler.set_epoch(epoch)


def token_budget_loader(
    dataset: Any,
    collate: Callable[..., Any],
    arguments: TrainingArguments,
    config: Config,
    *,
    seed: int,
) -> TokenBudgetLoader:
    """Batches of at most `training.tokens_per_batch` tokens for this process.

    Args:
        dataset: a `TuningDataset`.
        collate: examples to a batch.
        arguments: for the options of the loader and this process's rank.
        config: the experiment.
        seed: of the order.
    """
    sampler = TokenBudgetBatchSampler(
        np.minimum(dataset.lengths_N, config.data.max_length),
        dataset.has_image_N,
        config.training.tokens_per_batch,
        rank=arguments.process_index,
        world_size=arguments.world_size,
        seed=seed,
    )
    return TokenBudgetLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
        persistent_workers=arguments.dataloader_persistent_workers,
        prefetch_factor=arguments.dataloader_prefetch_factor,
    )
