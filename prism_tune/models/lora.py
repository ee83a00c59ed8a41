"""LoRA on a decoder: where it goes, and how much of the decoder it reaches.

A model's parts go in; a `peft.LoraConfig` comes out that names every linear layer of the decoder
blocks, and the experts whose weights are one fused parameter each.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn

from prism_tune.errors import UserError
from prism_tune.models.families import Parts
from prism_tune.models.flops import count_numbers, count_parameters, is_expert

logger = logging.getLogger(__name__)

_DEFAULTS: dict[str, Any] = {"r": 128, "lora_alpha": 256, "lora_dropout": 0.05}
_LAYER_INDEX = re.compile(r"\.\d+\.")
_NOT_ON_EXPERTS = ("lora_dropout", "use_dora", "lora_bias")
"""Options that peft refuses with `target_parameters`."""

_LITTLE = 0.5


def lora_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`training.lora` over our defaults."""
    return {**_DEFAULTS, **given}


def lora_config(found: Parts, in_full: Sequence[str], given: Mapping[str, Any]) -> LoraConfig:
    """LoRA on every linear layer and every expert of the decoder, other parts trained in full.

    Never on the vision tower or the projector, whatever their layers are called and whatever
    `target_modules` are given; what `modules_to_save` names comes beside the parts in full. peft
    has no dropout for fused experts: without `lora_dropout` in `given` there is none in such a
    model; with one the experts stay as they are.

    Args:
        found: the model's parts.
        in_full: module paths of what is trained in full (LLaVA-1.5: the projector).
        given: `training.lora`; goes to peft and wins.
    """
    options = lora_options(given)
    experts = _fused_experts(found)
    hindered = [name for name in _NOT_ON_EXPERTS if given.get(name)]
    if experts and not {"target_modules", "target_parameters"} & given.keys():
        if hindered:
            logger.warning(
                "LoRA: peft does not take training.lora.%s for fused experts, which stay untrained",
                hindered[0],
            )
        else:
            options |= {"target_parameters": experts, "lora_dropout": 0.0}
    also_in_full = options.pop("modules_to_save", None) or ()
    config = LoraConfig(
        **{
            "target_modules": lora_targets(found),
            "modules_to_save": [*in_full, *also_in_full] or None,
            "task_type": "CAUSAL_LM",
            **options,
        }
    )
    if {"target_modules", "target_parameters"} & given.keys():
        _confine(config, found)
    return config


def _confine(config: LoraConfig, found: Parts) -> None:
    """Keep LoRA off tower and projector, whose layers are often called as the decoder's are."""
    outside = [
        rf"{re.escape(path)}(\..*)?"
        for part in ("vision_tower", "projector")
        for path in found.names[part]
    ]
    given = config.exclude_modules or []
    if isinstance(given, str):
        outside.append(given)
    else:
        outside += [rf"(.*\.)?{re.escape(name)}" for name in sorted(given)]
    config.exclude_modules = "|".join(f"({pattern})" for pattern in outside)


def lora_targets(found: Parts) -> str:
    """A regular expression that matches exactly the linear layers of the decoder blocks."""
    (root,) = found.names["language_model"]
    linear = {
        _LAYER_INDEX.sub(".#.", f".{name}", count=1)
        for name, module in found.language_model.named_modules()
        if isinstance(module, nn.Linear) and _LAYER_INDEX.search(f".{name}")
    }
    if not linear:
        raise UserError(f"no linear layers in the decoder blocks below {root}: LoRA has no target")
    patterns = (re.escape(name).replace(r"\#", r"\d+") for name in sorted(linear))
    return rf"{re.escape(root)}(?:{'|'.join(patterns)})"


def log_coverage(tuned: PeftModel, found: Parts) -> float:
    """Log which share of the decoder blocks' weights LoRA adapts, and return it."""
    adapted = sum(map(count_numbers, _adapted_weights(found.language_model)))
    decoder: Any = found.language_model
    total = sum(
        count_numbers(parameter)
        for name, parameter in decoder.layers.named_parameters()
        if "lora_" not in name
    )
    share = adapted / total
    log = logger.warning if share < _LITTLE else logger.info
    log(
        "LoRA adapts %.1f %% of the decoder's weights (%.1f M), by %.1f M trained parameters%s",
        100 * share,
        total / 1e6,
        count_parameters(tuned, trained_only=True) / 1e6,
        "; training.lora.target_modules and target_parameters say which" if share < _LITTLE else "",
    )
    return share


def _adapted_weights(decoder: nn.Module) -> Iterator[Any]:
    for module in decoder.modules():
        if isinstance(module, ParamWrapper):
            yield module.get_param()
        elif isinstance(module, LoraLayer):
            yield module.get_base_layer().weight


def _fused_experts(found: Parts) -> list[str]:
    """Names, from the decoder block on, of parameters that hold the weights of many experts."""
    layers: Any = found.language_model
    return sorted(
        {
            name.split(".", 1)[1]
            for name, parameter in layers.layers.named_parameters()
            if is_expert(name) and len(getattr(parameter, "ds_shape", parameter.shape)) == 3
        }
    )
