"""Options of `transformers.TrainingArguments`: our defaults, and which of them change the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from prism_tune.config.epochs import NUM_EPOCHS
from prism_tune.config.sections import Config
from prism_tune.training.callbacks import VALIDATION_LOSS

_LEARNING_RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5, "projector": 1e-3}
WITHOUT_EFFECT = frozenset(
    {
        # what is shown, written and uploaded
        "debug",
        "disable_tqdm",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "include_num_input_tokens_seen",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "project",
        "push_to_hub",
        "report_to",
        "run_name",
        "skip_memory_metrics",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        # which checkpoints there are to go on from
        "enable_jit_checkpoint",
        "save_on_each_node",
        "save_only_model",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        # how the same batches are fetched, and how long processes wait for each other
        "dataloader_multiprocessing_context",
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "ddp_timeout",
        "local_rank",
        "torch_empty_cache_steps",
        # how held-out records are evaluated; which they are is `training.validation`
        "batch_eval_metrics",
        "bf16_full_eval",
        "do_eval",
        "do_predict",
        "do_train",
        "eval_accumulation_steps",
        "eval_delay",
        "eval_do_concat_batches",
        "eval_on_start",
        "eval_steps",
        "eval_strategy",
        "eval_use_gather_object",
        "fp16_full_eval",
        "include_for_metrics",
        "per_device_eval_batch_size",
        "prediction_loss_only",
    }
)
"""Options of TrainingArguments that change nothing of what is learnt; any other is taken to."""
_EVALUATED = {"eval_strategy", "eval_steps", "eval_delay"}
_SAVED = {"save_strategy", "save_steps"}
_WATCHING = {"reduce_lr_on_plateau", "greedy"}
"""Schedules that follow the loss of held-out records."""


def default_options(config: Config) -> dict[str, Any]:
    """Ours of TrainingArguments, where they are not transformers' own: LLaVA-1.5's recipe."""
    saves_best = config.training.hf.get("save_strategy") == "best"
    return {
        "seed": config.seed,
        "data_seed": config.seed,
        "num_train_epochs": NUM_EPOCHS,
        "learning_rate": _LEARNING_RATES[config.training.tuning],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "weight_decay": 0.0,
        "logging_steps": 1,
        # The filter would replace a NaN in the log by the mean of the losses before it.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": 0.2,
        "save_total_limit": 1,
        "dataloader_num_workers": config.data.num_workers,
        **({"eval_strategy": "steps", "eval_steps": 0.1} if config.training.validation else {}),
        # transformers knows it where a checkpoint is loaded for its loss, not where it is saved.
        **({"metric_for_best_model": VALIDATION_LOSS} if saves_best else {}),
        "report_to": ["wandb"] if config.tracking.wandb else "none",
        "run_name": config.name,
    }


def learning_options(config: Config) -> dict[str, Any]:
    """The options of TrainingArguments that what is learnt depends on, where not its defaults."""
    usual = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    options = {**default_options(config), **config.training.hf}
    without_effect = WITHOUT_EFFECT - _choosing(options)
    return {
        name: value
        for name, value in options.items()
        if name not in without_effect and not (name in usual and usual[name] == value)
    }


def _choosing(options: Mapping[str, Any]) -> set[str]:
    """Those of `WITHOUT_EFFECT` that decide which checkpoint is the model, or a learning rate."""
    names: set[str] = set()
    if options.get("load_best_model_at_end"):
        names |= _EVALUATED | _SAVED
    if options["lr_scheduler_type"] in _WATCHING:
        names |= _EVALUATED
    if names and not options.get("eval_steps"):  # transformers takes these in their place
        names.add("logging_steps")
    return names
