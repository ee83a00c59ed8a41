"""Which parameters are trained, and how: LoRA, full, projector only; learning rates per part.

A loaded model goes in; the same model, frozen and adapted, comes out (a `PeftModel` for LoRA).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Union, get_args, get_type_hints

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners import lora
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from prism_tune.config.sections import ModelConfig, Part, TrainingConfig
from prism_tune.errors import ConfigError
from prism_tune.models.copies import check_copies, lies_in, name_in_model, outermost
from prism_tune.models.families import Parts, part_of, parts
from prism_tune.models.load import load_model
from prism_tune.models.lora import log_coverage, lora_config
from prism_tune.models.packed import load_packed, require_bitsandbytes

TunedModel = PreTrainedModel | PeftModel

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)


def load_for_tuning(
    config: ModelConfig, training: TrainingConfig, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The model to start from: in `dtype`, or in 4 bit for `qlora`.

    Raises:
        UserError: `qlora` without bitsandbytes or without CUDA; model not found.
    """
    if training.tuning != "qlora":
        model = load_model(config, dtype=dtype, device=device)
        if is_deepspeed_zero3_enabled():
            # ZeRO-3 loading leaves every renaming that it tried on the model, and saving would undo
            # them all, also those that did not apply: `language_model.model.model...`.
            model._weight_conversions = None  # type: ignore[assignment]
        return model
    return load_packed(config, dtype=dtype, device=device)


def prepare_tuning(
    model: PreTrainedModel, training: TrainingConfig, *, weights_dtype: torch.dtype
) -> TunedModel:
    """Freeze, add LoRA where asked, and give the trained weights their dtype.

    Args:
        model: as loaded.
        training: the config's section.
        weights_dtype: of the trained weights; float32 unless DeepSpeed keeps float32 masters.

    Raises:
        ConfigError: nothing would be trained, a learning rate for a frozen part, a LoRA option
            that peft does not know or that trains other parts.
    """
    check_parts(training)
    found = parts(model)
    if training.tuning == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model.requires_grad_(False)
    tuned: TunedModel = model
    if training.tuning in ("lora", "qlora"):
        check_lora(training)
        tuned = _adapt(model, found, training)
        _check_trained(tuned, found, training)
        log_coverage(tuned, found)
    else:
        trained = _trained_parts(training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = parameter_part(name, found) in trained
    for parameter in tuned.parameters():
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(weights_dtype)
    _spare_adapter_casts(tuned)
    return tuned


def _adapt(model: PreTrainedModel, found: Parts, training: TrainingConfig) -> PeftModel:
    """LoRA on the decoder; the other parts that are trained are trained in full."""
    trained = _trained_parts(training)
    beside: tuple[Part, ...] = ("projector", "vision_tower")
    owners = {path: part for part in beside for path in found.names[part]}
    copied = outermost([path for path, part in owners.items() if part in trained])
    tuned = get_peft_model(model, lora_config(found, copied, training.lora))
    assert isinstance(tuned, PeftModel)
    check_copies(tuned)
    for path, part in owners.items():
        if part not in trained and lies_in(path, copied):
            model.get_submodule(path).requires_grad_(False)
    return tuned


def _spare_adapter_casts(tuned: TunedModel) -> None:
    """Let LoRA take its input as it is: training always runs under autocast, which casts weights.

    peft would raise the input to the adapter's float32 for autocast to lower it again: the same
    numbers for a sixth of a step on an H100. Not with dropout on a CPU, where torch rounds 1 / (1 -
    p) to the input's type.
    """
    for module in tuned.modules():
        if isinstance(module, lora.Linear) and not module.lora_variant:  # as DoRA is
            drops = any(isinstance(drop, nn.Dropout) for drop in module.lora_dropout.values())
            if not drops or all(weight.is_cuda for weight in module.parameters()):
                module.cast_input_dtype_enabled = False


def _check_trained(tuned: TunedModel, found: Parts, training: TrainingConfig) -> None:
    """Check that peft trains the parts that the config says, whatever `training.lora` made of it.

    Raises:
        ConfigError: others, or not all of them.
    """
    wanted = _trained_parts(training)
    trained: dict[Part, str] = {}
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            trained.setdefault(parameter_part(name, found), name_in_model(name))
    for part in sorted(trained.keys() ^ wanted):
        raise ConfigError(
            f"training.lora trains {trained[part]}, but training.freeze keeps {part} as it is"
            if part in trained
            else f"training.lora leaves {part} untrained, which training.freeze does not list"
        )


def spare_frozen_gradients(model: TunedModel) -> None:
    """Take back that recomputing activations makes every embedding's output ask for a gradient.

    Transformers does so for reentrant checkpointing, in each submodel: the backward pass then goes
    through the whole frozen vision tower, and nothing comes of it.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    base.disable_input_require_grads()


def check_lora(training: TrainingConfig) -> None:
    """Check `training.lora` before a model is loaded.

    Raises:
        ConfigError: an option that peft does not know, of another type, or that cannot train.
    """
    require_known("training.lora", training.lora, LoraConfig)
    if training.lora.get("r", 1) < 1:
        raise ConfigError(f"training.lora.r = {training.lora['r']!r}: expected at least 1")
    if training.lora.get("inference_mode"):
        raise ConfigError("training.lora.inference_mode: true trains nothing; leave it out")
    if training.lora.get("bias") == "all":
        raise ConfigError(
            "training.lora.bias: all trains the biases of frozen parts too; lora_only trains those "
            "of the layers that LoRA adapts"
        )


def check_tuning(training: TrainingConfig, device: torch.device) -> None:
    """Check how to tune before a model is loaded.

    Raises:
        ConfigError: parts that do not go with the way of tuning.
        UserError: qlora without a CUDA device or bitsandbytes.
    """
    check_parts(training)
    if training.tuning == "qlora":
        require_bitsandbytes(device)


def require_known(section: str, given: Mapping[str, Any], options: type) -> None:
    """Check that a library's options dataclass has these fields, and would take these values.

    Raises:
        ConfigError: naming the nearest field, or what the field takes.
    """
    known = [field.name for field in dataclasses.fields(options) if field.init]
    types = get_type_hints(options)
    for key, value in given.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise ConfigError(f"{section}: {options.__name__} has no `{key}`{hint}")
        wanted = _name_choices(types[key])
        config = None if dataclasses.is_dataclass(wanted) else _ANY_TYPE
        try:
            TypeAdapter(wanted, config=config).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"{section}.{key} = {value!r}: {reason}") from error


def _name_choices(wanted: Any) -> Any:
    """Of `SomeEnum | str`, as libraries write their choices, the enum alone."""
    members = get_args(wanted)
    if not any(isinstance(member, type) and issubclass(member, Enum) for member in members):
        return wanted
    return Union[tuple(member for member in members if member is not str)]  # noqa: UP007


def parameter_part(name: str, found: Parts) -> Part:
    """The part that a parameter of the model (or of its `PeftModel`) belongs to.

    The language-modelling head counts as the language model.
    """
    part = part_of(name_in_model(name), found)
    return "language_model" if part == "other" else part  # type: ignore[return-value]


def tuned_parts(model: TunedModel) -> Parts:
    """The parts of a model that `prepare_tuning` returned."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return parts(base)


def parameter_groups(
    model: TunedModel, training: TrainingConfig, *, decayed: set[str], weight_decay: float
) -> Iterator[dict[str, Any]]:
    """Optimiser groups, each named by its `part`; one with its own learning rate carries `lr`.

    Args:
        model: after `prepare_tuning`.
        training: the config's section.
        decayed: names of the parameters that weight decay applies to.
        weight_decay: for those.
    """
    found = tuned_parts(model)
    groups: dict[tuple[Part, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (parameter_part(name, found), name in decayed)
            groups.setdefault(key, []).append(parameter)
    for (part, decays), parameters in groups.items():
        rate = training.learning_rates.get(part)
        yield {
            "params": parameters,
            "part": part,  # for the log
            "weight_decay": weight_decay if decays else 0.0,
            **({} if rate is None else {"lr": rate}),
        }


def _trained_parts(training: TrainingConfig) -> set[Part]:
    everything: set[Part] = {"vision_tower", "projector", "language_model"}
    kept: set[Part] = {"projector"} if training.tuning == "projector" else everything
    return kept - set(training.freeze)


def check_parts(training: TrainingConfig) -> None:
    """Check that something is trained, and that it goes with the way of tuning.

    Raises:
        ConfigError: nothing is, LoRA of a frozen language model, or a learning rate without use.
    """
    trained = _trained_parts(training)
    if not trained:
        raise ConfigError(
            f"training.freeze: with tuning `{training.tuning}` nothing is left to train"
        )
    if training.tuning in ("lora", "qlora") and "language_model" not in trained:
        raise ConfigError(
            "training.freeze: LoRA adapts the language model, which is frozen; "
            "use `tuning: projector`, or take language_model out of `freeze`"
        )
    for part in training.learning_rates:
        if part not in trained:
            raise ConfigError(f"training.learning_rates.{part}: that part is not trained")
