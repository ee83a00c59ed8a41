"""Where each model family of transformers keeps its parts.

One row per `config.model_type`. A new family is one row and a test on a tiny random checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from prism_tune.errors import UserError


@dataclass(frozen=True)
class Family:
    """Module paths inside the base model (`AutoModel`; without the language-modelling head)."""

    vision_tower: str
    projector: str
    language_model: str = "language_model"


_LLAVA = Family("vision_tower", "multi_modal_projector")
_IDEFICS3 = Family("vision_model", "connector", "text_model")

FAMILIES: dict[str, Family] = {
    "llava": _LLAVA,
    "llava_next": _LLAVA,
    "llava_onevision": _LLAVA,
    "internvl": _LLAVA,
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    # The merger is the last module of the visual tower; see `parts` for how it is told apart.
    "qwen2_5_vl": Family("visual", "visual.merger"),
}


@dataclass(frozen=True)
class Parts:
    """The parts of a loaded model.

    `names` maps each part to its module path in the model that was passed in, so that a regular
    expression or a parameter prefix can be built from it.
    """

    base: PreTrainedModel
    vision_tower: nn.Module
    projector: nn.Module
    language_model: nn.Module
    image_token_id: int
    names: dict[str, str]


def parts(model: PreTrainedModel) -> Parts:
    """Find a model's parts, whether it is the base model or carries a language-modelling head.

    Raises:
        UserError: the family is not one of `FAMILIES`.
    """
    family = family_of(model.config)
    base = model.base_model
    assert isinstance(base, PreTrainedModel)
    prefix = "" if base is model else f"{model.base_model_prefix}."
    return Parts(
        base=base,
        vision_tower=base.get_submodule(family.vision_tower),
        projector=base.get_submodule(family.projector),
        language_model=base.get_submodule(family.language_model),
        image_token_id=image_token_id(model.config),
        names={
            "vision_tower": prefix + family.vision_tower,
            "projector": prefix + family.projector,
            "language_model": prefix + family.language_model,
        },
    )


def family_of(config: PretrainedConfig) -> Family:
    """The family's row.

    Raises:
        UserError: the family is not one of `FAMILIES`.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise UserError(
            f"model type {config.model_type!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return family


def image_token_id(config: PretrainedConfig) -> int:
    """The id that stands for one image feature in `input_ids`."""
    for name in ("image_token_id", "image_token_index"):
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    raise UserError(f"{config.model_type}: the config names no image token")


def part_of(parameter_name: str, found: Parts) -> str:
    """Which part a parameter belongs to: the longest matching module path; else "other"."""
    matching = [
        (len(path), part)
        for part, path in found.names.items()
        if parameter_name.startswith(path + ".")
    ]
    return max(matching)[1] if matching else "other"
