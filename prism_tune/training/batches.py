"""Packed rows: a dataset in, this process's batches of one row each out.

Accelerate deals batches of a fixed number of records only; rows are dealt by their own sampler, so
that their loader is a plain one of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from prism_tune.config.sections import Config
from prism_tune.data.batching import ModalityLengthSampler, PackedBatchSampler
from prism_tune.data.collator import Collator, PackingCollator
from prism_tune.errors import ConfigError
from prism_tune.run.worker_processes import count_bytes, fit_workers

_PREFETCHED = 2
"""Batches that a worker of torch has ready where nothing is said."""


class RowLoader(DataLoader[Any]):
    """A plain loader that passes the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        sampler: Any = self.batch_sampler
        sampler.set_epoch(epoch)


def packs_rows(config: Config) -> bool:
    """Whether a batch is a row of a number of tokens rather than a number of records."""
    return config.training.batching == "packed"


def build_collator(config: Config, processor: Any) -> Collator:
    """Examples to a padded batch, or to one packed row."""
    return (PackingCollator if packs_rows(config) else Collator)(processor)


def global_batch(arguments: TrainingArguments, config: Config) -> int:
    """Records, or packed rows, of a step: of all processes and accumulated batches."""
    own = 1 if packs_rows(config) else arguments.train_batch_size
    return own * arguments.world_size * arguments.gradient_accumulation_steps


def check_full_batch(arguments: TrainingArguments, dataset: Any, config: Config) -> None:
    """Check that there is a batch for every process where incomplete ones are left out.

    Raises:
        ConfigError: all records would be.
    """
    num_records = arguments.train_batch_size * arguments.world_size
    if not arguments.dataloader_drop_last or packs_rows(config) or len(dataset) >= num_records:
        return
    raise ConfigError(
        f"training.hf.dataloader_drop_last leaves out batches that are not full, and of "
        f"{num_records} records (training.hf.per_device_train_batch_size x processes) there is "
        f"none: {len(dataset)} are trained on"
    )


def fit_loader(
    arguments: TrainingArguments, dataset: Any, config: Config, *, held_out: Any
) -> None:
    """Take no more workers than shared memory has room for (see `run.worker_processes`).

    Args:
        arguments: of the trainer; changed in place.
        dataset: a `TuningDataset`, whose longest example stands for all.
        config: the experiment.
        held_out: another or None, evaluated by as many workers while those of the training wait.
    """
    if not arguments.dataloader_num_workers:
        return
    num_examples = arguments.per_device_train_batch_size
    if packs_rows(config):
        length = max(1, int(dataset.lengths_N.max()))
        num_examples = -(-config.training.tokens_per_batch // length)
    batch_bytes = num_examples * _largest_bytes(dataset)
    prefetch = arguments.dataloader_prefetch_factor or _PREFETCHED
    if held_out is not None:
        batch_bytes += arguments.per_device_eval_batch_size * _largest_bytes(held_out)
        prefetch = max(prefetch, _PREFETCHED)
    arguments.dataloader_num_workers = fit_workers(
        arguments.dataloader_num_workers, batch_bytes, prefetch=prefetch
    )
    if not arguments.dataloader_num_workers:  # torch takes them with workers only
        arguments.dataloader_prefetch_factor = None
        arguments.dataloader_persistent_workers = False


def _largest_bytes(dataset: Any) -> int:
    return count_bytes(dataset[int(dataset.lengths_N.argmax())])


def modality_sampler(
    dataset: Any, arguments: TrainingArguments, *, seed: int
) -> ModalityLengthSampler:
    """The order of a `TuningDataset` in LLaVA's grouping, for the global batch of the arguments."""
    return ModalityLengthSampler(
        dataset.lengths_N,
        dataset.has_image_N,
        arguments.train_batch_size,
        arguments.world_size * arguments.gradient_accumulation_steps,
        seed,
    )


def row_loader(
    dataset: Any,
    collate: Callable[..., Any],
    arguments: TrainingArguments,
    config: Config,
    *,
    seed: int,
) -> RowLoader:
    """Rows of at most `training.tokens_per_batch` tokens for this process.

    Args:
        dataset: a `TuningDataset`.
        collate: examples to a batch.
        arguments: for the options of the loader and this process's rank.
        config: the experiment.
        seed: of the order.
    """
    sampler = PackedBatchSampler(
        np.minimum(dataset.lengths_N, config.data.max_length),
        dataset.has_image_N,
        config.training.tokens_per_batch,
        rank=arguments.process_index,
        world_size=arguments.world_size,
        seed=seed,
    )
    return RowLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
        persistent_workers=arguments.dataloader_persistent_workers,
        prefetch_factor=arguments.dataloader_prefetch_factor,
    )
