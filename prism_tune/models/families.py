"""Where each model family of transformers keeps its parts.

One row per `config.model_type`. A new family is one row and a test on a tiny random checkpoint;
whether a row is right is measured when a model is first used (`guards.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from prism_tune.config.plugins import find_plugged, list_plugged
from prism_tune.errors import UserError
from prism_tune.models.flops import active_share


@dataclass(frozen=True)
class Family:
    """Module paths inside the base model (`AutoModel`; without the language-modelling head).

    `more_projectors`: lists of modules that lead from the tower to the decoder besides `projector`.
    """

    vision_tower: str
    projector: str
    language_model: str = "language_model"
    more_projectors: tuple[str, ...] = ()


_LLAVA = Family("vision_tower", "multi_modal_projector")
_IDEFICS3 = Family("vision_model", "connector", "text_model")
# The merger is the last module of the visual tower; see `part_of` for how it is told apart.
_QWEN_VL = Family("visual", "visual.merger")
# Deepstack: features of early layers of the tower, each merged like the last one's, are added to
# the first layers of the decoder.
_QWEN3_VL = Family("visual", "visual.merger", more_projectors=("visual.deepstack_merger_list",))

FAMILIES: dict[str, Family] = {
    "llava": _LLAVA,
    "llava_next": _LLAVA,
    "llava_onevision": _LLAVA,
    "internvl": _LLAVA,
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    "qwen2_vl": _QWEN_VL,
    "qwen2_5_vl": _QWEN_VL,
    "qwen3_vl": _QWEN3_VL,
    "qwen3_vl_moe": _QWEN3_VL,
    "qwen3_5": _QWEN_VL,
    "qwen3_5_moe": _QWEN_VL,
    "glm4v": _QWEN_VL,
    "mistral3": _LLAVA,
    "vipllava": _LLAVA,
    "aya_vision": _LLAVA,
    "gemma3": _LLAVA,
}


REFUSED: dict[str, str] = {
    "paligemma": "its prompt attends in both directions, answers included while it is tuned, so "
    "that labels would leak into what predicts them",
    "mllama": "images enter by cross-attention: no token of the decoder is an image's",
    "idefics": "images enter by cross-attention: no token of the decoder is an image's",
    "llama4": "transformers has no base model of its vision and text parts together, of which the "
    "first decoder layers could be loaded",
    "blip-2": "a Q-Former writes the image tokens, which is no projector of a tower's patches",
    "instructblip": "a Q-Former that reads the question writes the image tokens",
    "florence2": "an encoder reads images and prompt in both directions",
    "kosmos-2": "image features stand in the text by position, and not by a token",
    "git": "its prompt attends in both directions to the image",
    "chameleon": "images are discrete tokens of the vocabulary: there is no projector",
    "emu3": "images are discrete tokens of the vocabulary: there is no projector",
    "fuyu": "there is no vision tower: patches go into the decoder as they are",
}
"""Why a family cannot be a row."""


FINAL_NORMS = ("norm", "final_layernorm", "embedding_norm")  # the second is Phi's, the third LFM2's


@dataclass(frozen=True)
class Parts:
    """The parts of a loaded model.

    Attributes:
        base: without the language-modelling head.
        vision_tower: with the projector in it where the family keeps it there.
        projector: everything between tower and decoder.
        language_model: the decoder.
        image_token_id: of the config.
        active_share: of a decoder's expert weights, what one token passes.
        names: module paths of each part in the model that was passed in, so that a regular
            expression or a parameter prefix can be built from them.
    """

    base: PreTrainedModel
    vision_tower: nn.Module
    projector: nn.Module
    language_model: nn.Module
    image_token_id: int
    active_share: float
    names: dict[str, tuple[str, ...]]


def parts(model: PreTrainedModel) -> Parts:
    """Find a model's parts, whether it is the base model or carries a language-modelling head.

    Raises:
        UserError: the family is not one of `FAMILIES`.
    """
    family = family_of(model.config)
    base = model.base_model
    assert isinstance(base, PreTrainedModel)
    prefix = "" if base is model else f"{model.base_model_prefix}."
    projectors = [family.projector]
    for path in family.more_projectors:
        listed = base.get_submodule(path)
        assert isinstance(listed, nn.ModuleList)
        projectors += [f"{path}.{number}" for number in range(len(listed))]
    return Parts(
        base=base,
        vision_tower=base.get_submodule(family.vision_tower),
        projector=nn.ModuleList([base.get_submodule(path) for path in projectors]),
        language_model=base.get_submodule(family.language_model),
        image_token_id=image_token_id(model.config),
        active_share=active_share(model.config.get_text_config()),
        names={
            "vision_tower": (prefix + family.vision_tower,),
            "projector": tuple(prefix + path for path in projectors),
            "language_model": (prefix + family.language_model,),
        },
    )


def final_norm(language_model: nn.Module) -> str:
    """The name of the norm behind a decoder's last layer.

    Raises:
        UserError: it has none that is known.
    """
    for name in FINAL_NORMS:
        if hasattr(language_model, name):
            return name
    raise UserError(
        f"{type(language_model).__name__}: no norm behind its last layer (looked for "
        f"{', '.join(FINAL_NORMS)}): its layers cannot be taken one by one"
    )


def family_of(config: PretrainedConfig) -> Family:
    """The family's row.

    Raises:
        UserError: the family is not one of `FAMILIES`; with the reason where it is known.
    """
    plugged = find_plugged("FAMILIES", config.model_type, Family, FAMILIES)
    family = plugged or FAMILIES.get(config.model_type)
    if family is None:
        reason = REFUSED.get(config.model_type)
        raise UserError(
            f"model type {config.model_type!r} is not supported"
            + (f": {reason}" if reason else "")
            + f"; supported: {', '.join([*FAMILIES, *list_plugged('FAMILIES')])}"
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
        for part, paths in found.names.items()
        for path in paths
        if parameter_name.startswith(path + ".")
    ]
    return max(matching)[1] if matching else "other"
