"""The config's training section as `transformers.TrainingArguments`.

Defaults are LLaVA-1.5's (docs/training.md); `training.hf` is passed verbatim and wins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from prism_tune.config.presets import find_file
from prism_tune.config.secrets import REDACTED
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.devices import multiplies_bf16, name_device, resolve_dtype
from prism_tune.models.tuning import check_lora, require_known
from prism_tune.run.folder import RunDir, read_json
from prism_tune.training.checkpoints import work_directory
from prism_tune.training.checks import check_kept_optimizer, check_values, check_zero
from prism_tune.training.hf_options import default_options

_LOADING_OPTIONS = (
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
)
_NOT_LISTED = ("azure_ml", "flyte")
"""Trackers that transformers knows and does not look for."""
_DEEPSPEED_KEYS = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
}
"""What a DeepSpeed file may say as well as `training.hf`, whatever machine it is read on."""
_FIXED = {
    "output_dir": "the run folder is made of `output_dir` and `name`",
    "deepspeed": "use `training.deepspeed`",
    "remove_unused_columns": "our batches are ready for the model",
    "resume_from_checkpoint": "the same command goes on from the newest checkpoint",
}


def training_arguments(
    config: Config, run: RunDir, *, device: torch.device, dtype: torch.dtype
) -> TrainingArguments:
    """Build the arguments; under DeepSpeed this must come after its process group is open.

    Args:
        config: the experiment.
        run: its folder.
        device: of this process.
        dtype: to compute in, from `compute_dtype`.

    Raises:
        ConfigError: a key TrainingArguments does not have (the nearest is named), a value it
            refuses, or a DeepSpeed file that cannot be used.
    """
    check_options(config)
    given = {k: v for k, v in config.training.hf.items() if v != REDACTED}
    options = {**default_options(config), **given}
    options.update(
        output_dir=str(work_directory(run)),
        use_cpu=device.type == "cpu",
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        deepspeed=_with_batch(deepspeed_options(config)),
        remove_unused_columns=False,
        report_to=_list_trackers(options["report_to"], config),
        # transformers has only a metric whose name ends with "loss" be the better the lower.
        greater_is_better=given.get("greater_is_better") or False,
        **_checkpointing(given),
        **_kernels(given),
    )
    with refused_by_library("training.hf"):
        arguments = TrainingArguments(**options)
    _use_one_device(arguments)
    _check_agreement(arguments, config)
    if "wandb" in (arguments.report_to or ()):
        _set_wandb_environment(config, run)
    return arguments


def check_options(config: Config) -> None:
    """Check the options of the libraries without making anything of them.

    Raises:
        ConfigError: a key TrainingArguments or LoraConfig does not have, a value of another type
            than theirs, or one that is ours to set.
    """
    given = config.training.hf
    require_known("training.hf", given, TrainingArguments)
    for key, reason in _FIXED.items():
        if key in given:
            raise ConfigError(f"training.hf.{key} cannot be set: {reason}")
    check_lora(config.training)
    check_values(config)


@contextmanager
def refused_by_library(section: str) -> Iterator[None]:
    """What a library says of the options of a section, as an error of the config's.

    For what is done before the first step: there a library's error is its answer to an option.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError(f"{section}: {error}") from error


def check_first_step(arguments: TrainingArguments) -> None:
    """Raise now what the options of schedule and loading would raise at the first step."""
    _check_schedule(arguments)
    _check_loading(arguments)


def _check_schedule(arguments: TrainingArguments) -> None:
    """Build a schedule of two steps; raises what transformers says of its name and options."""
    options: Any = arguments.lr_scheduler_kwargs
    get_scheduler(
        arguments.lr_scheduler_type,
        optimizer=torch.optim.SGD([torch.zeros(1)]),
        num_warmup_steps=1,
        num_training_steps=2,
        scheduler_specific_kwargs=options,
    )


def _check_loading(arguments: TrainingArguments) -> None:
    """Build a loader of nothing; raises what torch says of the options."""
    options = {
        name.removeprefix("dataloader_"): getattr(arguments, name) for name in _LOADING_OPTIONS
    }
    nothing: Any = [0]
    DataLoader(nothing, **options)


def compute_dtype(config: Config, device: torch.device) -> torch.dtype:
    """What to compute in: `training.hf.bf16/fp16` when given, else `model.dtype`.

    Raises:
        ConfigError: the device cannot compute in what was asked.
    """
    asked = {name: config.training.hf.get(name) for name in ("bf16", "fp16")}
    if asked["bf16"] and asked["fp16"]:
        raise ConfigError("training.hf: bf16 and fp16 are both on; choose one")
    if asked["bf16"]:
        dtype = resolve_dtype("bfloat16", device)
    elif asked["fp16"]:
        dtype = torch.float16
    elif False in asked.values():
        dtype = torch.float32
    else:
        dtype = resolve_dtype(config.model.dtype, device)
    if dtype is torch.float16 and device.type == "cpu":
        raise ConfigError("float16 training needs a GPU; use bf16 or model.dtype=float32")
    if dtype is torch.bfloat16 and device.type == "cuda" and not multiplies_bf16(device):
        raise ConfigError(
            f"bfloat16 was asked for, which {name_device(device)} does not multiply: take "
            "training.hf.fp16 in place of bf16, or model.dtype=auto"
        )
    return dtype


def deepspeed_options(config: Config) -> dict[str, Any] | None:
    """The DeepSpeed file's content; None for plain training (DDP with several processes).

    Gradients are clipped as `training.hf.max_grad_norm` says, as without DeepSpeed, which by itself
    would not clip where its file says nothing of it.

    Raises:
        ConfigError: no such file or preset, ZeRO-3 without gathering on save or of a packed model,
            an optimizer or a scheduler in place of ours, or other values than training.hf has.
    """
    given = config.training.deepspeed
    if given is None:
        return None
    path = find_file(given, "deepspeed")
    if not path.is_file():
        raise ConfigError(
            f"training.deepspeed: {given}: no such file; null trains without DeepSpeed"
        )
    options: dict[str, Any] = read_json(path)
    if not isinstance(options, dict) or not isinstance(options.get("zero_optimization", {}), dict):
        raise ConfigError(f"{path}: expected an object, as the files in configs/deepspeed are")
    check_zero(path, options.get("zero_optimization", {}), config.training)
    check_kept_optimizer(path, options, config.training.hf)
    _refuse_disagreement(_compare(options, config.training.hf), config)
    return {"gradient_clipping": "auto", **options}


def _with_batch(options: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same, with the batch of `training.hf` also where the file says nothing of it.

    Not among `deepspeed_options`, by which a finished training is known: nothing else is learnt.
    """
    batch = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    return None if options is None else {**dict.fromkeys(batch, "auto"), **options}


def _compare(options: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Where a DeepSpeed file says otherwise than `training.hf`, its default where not given."""
    found = []
    for key, ours in _DEEPSPEED_KEYS.items():
        asked = given.get(ours, getattr(TrainingArguments, ours))
        if options.get(key, "auto") not in ("auto", asked):
            found.append(f"{key}={options[key]}, but training.hf has {ours}={asked}")
    return found


def _use_one_device(arguments: TrainingArguments) -> None:
    """One process is one GPU: over all that it sees transformers would deal every batch.

    The batch would be that many times as large, and the loss, which is a sum over the labels of the
    step, as well.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1


def _check_agreement(arguments: TrainingArguments, config: Config) -> None:
    """Refuse now what transformers would when it hands the model to DeepSpeed."""
    found: Any = getattr(arguments, "hf_deepspeed_config", None)
    said = "\n".join(found.mismatches) if found else ""
    said = said.replace("- ds ", "").replace(" vs hf ", ", but training.hf has ")
    _refuse_disagreement(said.splitlines(), config)


def _refuse_disagreement(mismatches: list[str], config: Config) -> None:
    if mismatches:
        where = f"training.deepspeed: {config.training.deepspeed}: not as the rest says"
        raise ConfigError(f"{where}: {'; '.join(mismatches)}; write 'auto' in their place")


def _checkpointing(given: dict[str, Any]) -> dict[str, Any]:
    """Reentrant checkpointing loses the gradients of frozen embeddings: off unless asked."""
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        options = given.get(f"{name}_kwargs") or {}
        if given.get(name) and isinstance(options, dict):
            return {f"{name}_kwargs": {"use_reentrant": False, **options}}
    return {}


def is_reentrant(arguments: TrainingArguments) -> bool:
    """Whether activations are recomputed in the way that needs gradients of frozen embeddings."""
    options: Any = arguments.activation_checkpointing_kwargs or {}
    return bool(arguments.activation_checkpointing and options.get("use_reentrant", True))


def _kernels(given: dict[str, Any]) -> dict[str, Any]:
    """Liger's kernels inside the layers; the loss stays ours, which needs no other logits."""
    if not given.get("use_liger_kernel"):
        return {}
    of_loss = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    return {"liger_kernel_config": {**(given.get("liger_kernel_config") or {}), **of_loss}}


def _list_trackers(asked: Any, config: Config) -> Any:
    """Those of `training.hf.report_to`, and W&B where `tracking.wandb` asks for it as well.

    Raises:
        ConfigError: one is not installed. transformers would say so from inside of an object half
            made, whose end (MLflow's) then complains as well.
    """
    if asked == "all":
        return asked
    names = [asked] if isinstance(asked, str) else [*(asked or [])]
    usable = {*get_available_reporting_integrations(), *_NOT_LISTED}
    missing = [name for name in names if name in INTEGRATION_TO_CALLBACK and name not in usable]
    if missing:
        raise ConfigError(
            f"training.hf.report_to: {missing[0]} is not installed: pip install {missing[0]}, or "
            "leave it out"
        )
    if not config.tracking.wandb:
        return asked
    return list(dict.fromkeys([*(name for name in names if name != "none"), "wandb"]))


def _set_wandb_environment(config: Config, run: RunDir) -> None:
    """Name project and folder to wandb, and keep it off the network unless it was let on."""
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_DIR", str(run.training))
    os.environ["WANDB_PROJECT"] = config.tracking.project
    if config.tracking.entity is not None:
        os.environ["WANDB_ENTITY"] = config.tracking.entity
