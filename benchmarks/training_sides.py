"""Our side of `benchmarks/training.py`, and plain transformers on our batches."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, set_seed

from prism_tune.config.sections import Config
from prism_tune.data.batching import ModalityLengthSampler
from prism_tune.data.collator import Collator
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.models.devices import pick_device, resolve_dtype
from prism_tune.models.processor import load_processor
from prism_tune.models.tuning import load_for_tuning, prepare_tuning
from prism_tune.run.folder import RunDir
from prism_tune.training.arguments import training_arguments
from prism_tune.training.batches import build_collator
from prism_tune.training.checkpoints import CheckpointWriter
from prism_tune.training.examples import build_examples
from prism_tune.training.meter import build_meter
from prism_tune.training.source_losses import SourcedCollator, SourcedExamples, take_sources
from prism_tune.training.trainer import TuningTrainer

MAX_LENGTH = 512


@dataclass(frozen=True)
class Workload:
    """What every side trains on, and how."""

    model: Path
    pool: Path
    updates: int
    batch_size: int
    tuning: str
    dtype: str
    template: str

    def for_updates(self, updates: int) -> Workload:
        """The same with another number of updates."""
        return dataclasses.replace(self, updates=updates)


def build_side(side: str, workload: Workload, folder: Path) -> Trainer:
    """One of our ways of batching."""
    config, processor, model, examples = _load(workload, folder)
    training = {"batching": side, "tokens_per_batch": tokens_per_batch(examples, workload)}
    config = config.model_copy(update={"training": config.training.model_copy(update=training)})
    sourced = SourcedExamples(examples)
    return TuningTrainer(
        config,
        checkpoints=CheckpointWriter(config, {}, {}),
        meter=build_meter(None, model),
        model=model,
        args=_our_arguments(config, folder),
        sources=sourced.names,
        train_dataset=sourced,
        data_collator=SourcedCollator(build_collator(config, processor)),
        processing_class=processor,
    )


def count_padded_tokens(workload: Workload) -> dict[str, int]:
    """Tokens of an epoch with padding, by way of batching, and the real ones."""
    config = _config(workload, Path("unused"))
    processor = load_processor(config.model)
    pool = open_pool(config.data)
    examples = TuningDataset(pool, range(len(pool)), processor, workload.template, MAX_LENGTH)
    lengths_N, has_image_N = np.minimum(examples.lengths_N, MAX_LENGTH), examples.has_image_N
    random = np.random.default_rng(0).permutation(len(lengths_N))
    grouped = np.array(list(ModalityLengthSampler(lengths_N, has_image_N, workload.batch_size)))
    cuts = range(workload.batch_size, len(lengths_N), workload.batch_size)
    batches = {
        "random": np.split(random, cuts),
        "modality_length": np.split(grouped, cuts),
    }
    padded = {
        name: sum(len(batch) * int(lengths_N[batch].max()) for batch in found)
        for name, found in batches.items()
    }
    return {**padded, "packed": int(lengths_N.sum()), "real": int(lengths_N.sum())}


def tokens_per_batch(examples: TuningDataset, workload: Workload) -> int:
    """As many tokens as a batch of records has on average."""
    return max(workload.batch_size * int(examples.lengths_N.mean()), MAX_LENGTH)


def build_transformers(workload: Workload, folder: Path) -> Trainer:
    """Plain transformers, on the batches that our `random` side makes."""
    _, processor, model, examples = _load(workload, folder)
    return Trainer(
        model=model,
        args=TrainingArguments(**_options(workload, folder), remove_unused_columns=False),
        train_dataset=examples,
        data_collator=Collator(processor),
    )


def save_batches(workload: Workload, folder: Path, to: Path) -> None:
    """The first batches of our `random` side, and the LoRA that it starts from, for the peers."""
    trainer = build_side("random", workload, folder)
    adapter = {n: p.detach() for n, p in trainer.model.named_parameters() if "lora_" in n}
    torch.save(adapter, to / "adapter.pt")
    set_seed(trainer.args.seed)
    batches = []
    for batch in itertools.islice(trainer.get_train_dataloader(), workload.updates):
        take_sources(batch)
        batches.append(batch)
    torch.save(batches, to / "batches.pt")


def _config(workload: Workload, folder: Path) -> Config:
    return Config.model_validate(
        {
            "name": "benchmark",
            "output_dir": str(folder),
            "model": {
                "path": str(workload.model),
                "dtype": workload.dtype,
                "template": workload.template,
            },
            "data": {
                "records": str(workload.pool),
                "image_dir": str(workload.pool.parent / "images"),
                "max_length": MAX_LENGTH,
                "num_workers": 0,
            },
            "training": {
                "records": "pool",
                "tuning": workload.tuning,
                "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0},
                "deepspeed": None,
                "hf": _hf(workload),
            },
        }
    )


def _load(workload: Workload, folder: Path) -> tuple[Config, Any, Any, TuningDataset]:
    config = _config(workload, folder)
    device = pick_device()
    dtype = resolve_dtype(config.model.dtype, device)
    processor = load_processor(config.model)
    base = load_for_tuning(config.model, config.training, dtype=dtype, device=device)
    model = prepare_tuning(base, config.training, weights_dtype=torch.float32)
    run = RunDir(folder / "benchmark")
    run.training.mkdir(parents=True)
    return config, processor, model, build_examples(config, run, processor).trained


def _hf(workload: Workload) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": workload.batch_size,
        "max_steps": workload.updates,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def _options(workload: Workload, folder: Path) -> dict[str, Any]:
    """Of transformers; ours come from the config."""
    return {
        **_hf(workload),
        "output_dir": str(folder),
        "use_cpu": pick_device().type == "cpu",
        "bf16": workload.dtype == "bfloat16",
        "weight_decay": 0.0,
        "seed": 0,
        "data_seed": 0,
        "dataloader_num_workers": 0,
        "report_to": "none",
    }


def _our_arguments(config: Config, folder: Path) -> TrainingArguments:
    device = pick_device()
    dtype = resolve_dtype(config.model.dtype, device)
    return training_arguments(config, RunDir(folder / "benchmark"), device=device, dtype=dtype)
