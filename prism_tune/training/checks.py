"""Values of `training.hf` that transformers takes and that would train something else, or nothing.

In: the experiment alone, so that it is known before a model or a record is read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from prism_tune.config.sections import Config, TrainingConfig
from prism_tune.errors import ConfigError
from prism_tune.training.callbacks import VALIDATION_LOSS
from prism_tune.training.hf_options import default_options

_OVERALL = ("loss", VALIDATION_LOSS)
_EVALUATING = ("eval_strategy", "do_eval", "eval_on_start", "load_best_model_at_end")
_DRAWN_AT_RANDOM = ("random", "sequential")
_SHARING = ("fsdp", "fsdp_config", "parallelism_config")
_OFFLOADED = ("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit")
"""Optimisers that DeepSpeed has as well on the CPU; of Adagrad and Lion accelerate makes none."""
_GROUPING = ("galore", "apollo", "lomo", "adalomo")
"""Beginnings of the names of optimisers that choose the parameters of each group themselves."""


def check_values(config: Config) -> None:
    """Check what can be said of `training.hf` before anything is loaded.

    Raises:
        ConfigError: naming the key, and what it takes.
    """
    options = {**default_options(config), **config.training.hf}
    _check_sharing(config.training.hf)
    _check_optimizer(config.training.hf)
    _check_ranges(options, rated=bool(config.training.learning_rates))
    _check_batches(options, config)
    _check_validation(config)
    _check_metric(options)
    _check_liger(options)


def check_metric_source(metric: str | None, sources: Sequence[str]) -> None:
    """Check that the source whose loss chooses the best checkpoint is one of the held-out records'.

    Raises:
        ConfigError: it is not; those that are, are named.
    """
    if metric is None or metric in _OVERALL:
        return
    source = metric.removeprefix("eval_").removeprefix("loss/")
    if source not in sources:
        raise ConfigError(
            f"training.hf.metric_for_best_model = {metric!r}: no held-out record is of that "
            f"source; there are {', '.join(sorted(sources)) or 'none'}"
        )


def check_zero(path: Path, zero: Mapping[str, Any], training: TrainingConfig) -> None:
    """Check that a model can be shared as a DeepSpeed file says, and written whole.

    Raises:
        ConfigError: ZeRO-3 without gathering on save, or of a model in 4 bit.
    """
    if zero.get("stage") != 3:
        return
    if training.tuning == "qlora":
        raise ConfigError(
            f"training.deepspeed: {path}: ZeRO-3 shares no model in 4 bit, which every device "
            "holds whole: use training.deepspeed=preset:zero2, or tuning: lora"
        )
    if not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise ConfigError(
            f"{path}: ZeRO-3 needs zero_optimization.stage3_gather_16bit_weights_on_model_save: "
            "true, or no checkpoint that others can load would be written"
        )


def check_kept_optimizer(path: Path, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check that optimiser and schedule stay those of `training.hf` under a DeepSpeed file.

    Raises:
        ConfigError: the file has others, or offloads the states of one that DeepSpeed has not.
    """
    for key, ours in (("optimizer", "optim"), ("scheduler", "lr_scheduler_type")):
        if key in options:  # neither knows that each part has a learning rate of its own
            raise ConfigError(
                f"{path}: its `{key}` would take the place of ours, which has a learning rate for "
                f"each part: leave it out; training.hf ({ours}, learning_rate, ...) and "
                "training.learning_rates say what it is"
            )
    name = given.get("optim", TrainingArguments.optim)
    offload = options.get("zero_optimization", {}).get("offload_optimizer") or {}
    is_offloaded = offload.get("device", "none") not in ("none", "auto")
    is_replaced = is_offloaded and options.get("zero_force_ds_cpu_optimizer", True)
    if is_replaced and name not in _OFFLOADED:
        raise ConfigError(
            f"training.hf.optim = {name!r}: with the offload_optimizer of {path} DeepSpeed's Adam "
            f"would take its place: use one of {', '.join(_OFFLOADED)}, or write "
            '"zero_force_ds_cpu_optimizer": false into a DeepSpeed file of your own'
        )


def _check_sharing(given: Mapping[str, Any]) -> None:
    """What is saved is compared with what is trained, whole: DeepSpeed's shards are gathered."""
    for name in _SHARING:
        if given.get(name):
            raise ConfigError(
                f"training.hf.{name} shares a model in a way whose checkpoints cannot be verified: "
                "use training.deepspeed=preset:zero3, which shares it as well"
            )


def _check_optimizer(given: Mapping[str, Any]) -> None:
    name = str(given.get("optim"))
    if name.startswith(_GROUPING):
        raise ConfigError(
            f"training.hf.optim = {name!r} groups the parameters itself, where each part of the "
            "model has a learning rate of its own: use adafactor, or adamw_bnb_8bit (pip install "
            "bitsandbytes), which take little memory as well, or training.tuning=lora"
        )


def _check_ranges(options: Mapping[str, Any], *, rated: bool) -> None:
    """Refuse what trains nothing now, not after the last step."""
    for name, is_sound, expected in (
        ("per_device_train_batch_size", lambda value: value >= 1, "at least 1"),
        ("per_device_eval_batch_size", lambda value: value >= 1, "at least 1"),
        ("gradient_accumulation_steps", lambda value: value >= 1, "at least 1"),
        ("max_steps", lambda value: value == -1 or value >= 1, "at least 1, or -1 for epochs"),
        ("num_train_epochs", lambda value: value > 0, "more than 0"),
        (
            "learning_rate",
            lambda value: (value > 0 or rated) and isfinite(value),
            "a number above 0, or nothing is learnt",
        ),
        ("adam_beta1", lambda value: 0 <= value < 1, "from 0 to below 1"),
        ("adam_beta2", lambda value: 0 <= value < 1, "from 0 to below 1"),
        ("label_smoothing_factor", lambda value: 0 <= value <= 1, "from 0 to 1"),
        ("seed", lambda value: 0 <= value < 2**32, "from 0 to 4,294,967,295"),
        ("data_seed", lambda value: 0 <= value < 2**32, "from 0 to 4,294,967,295"),
    ):
        if options.get(name) is not None and not is_sound(options[name]):
            raise ConfigError(f"training.hf.{name} = {options[name]!r}: expected {expected}")


def _check_batches(options: Mapping[str, Any], config: Config) -> None:
    """Which records a step has is `training.batching`'s, and how many is in every record."""
    if options.get("auto_find_batch_size"):
        raise ConfigError(
            "training.hf.auto_find_batch_size would train with another global batch than every "
            "record of the run says: halve per_device_train_batch_size and double "
            "gradient_accumulation_steps where memory is short"
        )
    strategy, batching = options.get("train_sampling_strategy"), config.training.batching
    if strategy in (None, "random"):
        return
    if batching != "random":
        raise ConfigError(
            f"training.hf.train_sampling_strategy = {strategy!r} needs training.batching=random: "
            f"{batching} draws the records itself"
        )
    if strategy not in _DRAWN_AT_RANDOM:
        raise ConfigError(
            f"training.hf.train_sampling_strategy = {strategy!r}: expected one of "
            f"{', '.join(_DRAWN_AT_RANDOM)}; training.batching=modality_length groups by length"
        )


def _check_validation(config: Config) -> None:
    if config.training.validation:
        return
    asked = {key: config.training.hf.get(key) not in (None, False, "no") for key in _EVALUATING}
    asked["save_strategy: best"] = config.training.hf.get("save_strategy") == "best"
    for key, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"training.hf.{key} needs records to evaluate on: set training.validation, the "
                "share of the records that is held out (for instance 0.02)"
            )


def _check_metric(options: Mapping[str, Any]) -> None:
    """The losses of held-out records are all there is to choose a checkpoint by."""
    metric = options.get("metric_for_best_model")
    if metric is None or metric in _OVERALL:
        return
    if not metric.startswith(tuple(f"{name}/" for name in _OVERALL)):
        raise ConfigError(
            f"training.hf.metric_for_best_model = {metric!r}: expected {VALIDATION_LOSS}, or "
            f"{VALIDATION_LOSS}/<source> for that of a source"
        )


def _check_liger(options: Mapping[str, Any]) -> None:
    if not options.get("use_liger_kernel"):
        return
    if importlib.util.find_spec("liger_kernel") is None:
        raise ConfigError(
            "training.hf.use_liger_kernel needs a GPU and liger-kernel: pip install liger-kernel"
        )
