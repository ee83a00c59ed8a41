"""The trainers that `benchmarks/training.py` compares, over the same model and pool."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

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
from prism_tune.training.source_losses import SourcedCollator, SourcedExamples
from prism_tune.training.trainer import TuningTrainer

MAX_LENGTH = 512
# chatml, as our template of that name writes it, with the marks that TRL finds answers by.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'][0]['text'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ image_token }}\n{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>{% endif %}\n{% endfor %}"
)


@dataclass(frozen=True)
class Workload:
    """What every side trains on, and how."""

    model: Path
    pool: Path
    updates: int
    batch_size: int
    tuning: str
    dtype: str

    def for_updates(self, updates: int) -> Workload:
        """The same with another number of updates."""
        return dataclasses.replace(self, updates=updates)


def build_side(side: str, workload: Workload, folder: Path) -> Trainer:
    """A side by its name: one of our ways of batching, or TRL's trainer."""
    config, processor, model, examples = _load(workload, folder)
    if side == "TRL SFTTrainer":
        return _trl_trainer(config, processor, model, examples, workload)
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
    examples = TuningDataset(pool, range(len(pool)), processor, "chatml", MAX_LENGTH)
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


def build_with_our_batches(name: str, workload: Workload, folder: Path) -> Trainer:
    """Plain transformers or TRL, on the batches that our `random` side makes."""
    _, processor, model, examples = _load(workload, folder)
    collate = Collator(processor)
    if name == "transformers":
        return Trainer(
            model=model,
            args=TrainingArguments(**_options(workload, folder), remove_unused_columns=False),
            train_dataset=examples,
            data_collator=collate,
        )
    numbers = Dataset.from_dict({"number": range(len(examples)), "images": [[]] * len(examples)})
    return SFTTrainer(
        model=model,
        args=_trl_arguments(workload, folder),
        train_dataset=numbers,
        data_collator=lambda rows: collate([examples[row["number"]] for row in rows]),
        processing_class=processor,
    )


def _config(workload: Workload, folder: Path) -> Config:
    return Config.model_validate(
        {
            "name": "benchmark",
            "output_dir": str(folder),
            "model": {"path": str(workload.model), "dtype": workload.dtype, "template": "chatml"},
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
    """Of transformers and TRL; ours come from the config."""
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


def _trl_arguments(workload: Workload, folder: Path, **options: Any) -> SFTConfig:
    return SFTConfig(
        **_options(workload, folder),
        **options,
        gradient_checkpointing=False,  # as ours
        max_length=MAX_LENGTH,
        remove_unused_columns=False,
    )


def _trl_trainer(
    config: Config, processor: Any, model: Any, examples: TuningDataset, workload: Workload
) -> SFTTrainer:
    """As TRL's guide has it: a data set of messages and images, its own collator, random order."""
    roles = {"human": "user", "gpt": "assistant"}
    rows = []
    for index in examples.indices:
        turns = examples.pool[index].turns
        messages = [
            {"role": roles[turn.role], "content": turn.text.replace("<image>\n", "")}
            for turn in turns
        ]
        images = [str(path) for path in examples.pool.image_paths(index)]
        rows.append({"messages": messages, "images": images})
    message = {"role": Value("string"), "content": Value("string")}
    features = Features({"messages": List(message), "images": List(Image())})
    processor.tokenizer.backend = "tokenizers"  # loading with backend="pil" has marked it otherwise
    processor.chat_template = CHAT_TEMPLATE.replace("{{ image_token }}", processor.image_token)
    return SFTTrainer(
        model=model,
        args=_trl_arguments(workload, Path(config.output_dir), assistant_only_loss=True),
        train_dataset=Dataset.from_list(rows, features=features),
        processing_class=processor,
    )
