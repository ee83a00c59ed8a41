"""The original LLaVA layout -> a stock `LlavaForConditionalGeneration` and its processor.

That layout is a language model's directory whose config.json (`llava_llama` and the like) names a
vision tower (`mm_vision_tower`) and a projector; the projector's weights lie among the others, or
alone in `mm_projector.bin` (the published pretrained projectors). Torch files are read with
`weights_only`, so that nothing in them is executed.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prism_tune.chat.builtin_templates import chat_template
from prism_tune.chat.templates import bare_image
from prism_tune.errors import UserError
from prism_tune.models.assembly.assemble import Recipe, VisionTower, assemble_llava
from prism_tune.models.assembly.read_parts import (
    load_language_model,
    load_vision_tower,
    read_complete,
)
from prism_tune.models.damage import explained
from prism_tune.models.tokenizer import load_tokenizer
from prism_tune.run.folder import read_object

logger = logging.getLogger(__name__)

_TEXT_TYPES = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "llava_qwen2": "qwen2",
}
_EXPECTED = {  # what a stock LLaVA can do; a key that is not there has the expected value
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "mm_patch_merge_type": "flat",
}
_FOREIGN = re.compile(
    r"(mm_|image_|tune_mm|use_mm|freeze_mm|unfreeze_mm|tokenizer_|max_length|architectures|"
    r"model_type|auto_map|_name_or_path|transformers_version)"
)
_PROJECTOR = re.compile(r"(?:^|\.)mm_projector\.(\d)\.(weight|bias)$")
_TOWER = re.compile(r"(?:^|\.)vision_tower\.vision_tower\.(?:vision_model\.)?(.+)$")
_LINEAR = {"0": "linear_1", "2": "linear_2"}


def is_original(directory: Path) -> bool:
    """Whether a directory is in the original layout: its config names a vision tower."""
    path = directory / "config.json"
    return path.exists() and "mm_vision_tower" in read_object(path)


def convert_original(
    directory: Path, *, vision_tower: str | None, language_model: str | None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Convert a checkpoint; the image token is added, and the embeddings grow by its row.

    Args:
        directory: in the original layout.
        vision_tower: directory or hub id, in place of the one the config names; None: that one.
        language_model: where the directory holds a pretrained projector only, the model it was
            trained with.

    Raises:
        UserError: a part is missing or cannot be read, or the config asks for what a stock LLaVA
            cannot do.
    """
    settings = read_object(directory / "config.json")
    _check_settings(settings, directory)
    weights = _read_multimodal(directory)
    decoder, tokenizer = _load_language_model(directory, settings, language_model)
    tower = load_vision_tower(vision_tower or str(settings["mm_vision_tower"]))
    _tune_tower(tower, weights, directory)
    recipe = Recipe(feature_layer=int(settings.get("mm_vision_select_layer", -2)))
    model, processor = assemble_llava(tower, decoder, tokenizer, recipe)
    if tokenizer.chat_template is None:
        processor.chat_template = chat_template("vicuna_v1", bare_image(processor))
    _fill_projector(model, weights, directory)
    return model, processor


def _check_settings(settings: Mapping[str, Any], directory: Path) -> None:
    for key, expected in _EXPECTED.items():
        if settings.get(key, expected) not in (expected, None):
            raise UserError(
                f"{directory / 'config.json'}: {key} is {settings[key]!r}, and a stock LLaVA of "
                f"transformers has {expected!r}: this checkpoint cannot be converted"
            )
    if "anyres" in str(settings.get("image_aspect_ratio")):
        raise UserError(
            f"{directory / 'config.json'}: image_aspect_ratio anyres is LLaVA-NeXT's, not "
            "LLaVA-1.5's; its converted checkpoints are on the hub"
        )


def _load_language_model(
    directory: Path, settings: Mapping[str, Any], language_model: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if (directory / "non_lora_trainables.bin").exists():
        raise UserError(
            f"{directory}: a LoRA checkpoint of the original code; merge it with that code's "
            "merge script and export the result"
        )
    if language_model is not None:
        return load_language_model(language_model)
    if not _weight_files(directory):
        raise UserError(
            f"{directory}: holds a pretrained projector only; name the language model it was "
            "trained with by --base-model"
        )
    config = _text_config(settings, directory)
    decoder = read_complete(AutoModelForCausalLM, str(directory), config=config)
    return decoder, load_tokenizer(str(directory))


def _text_config(settings: Mapping[str, Any], directory: Path) -> PretrainedConfig:
    """The plain language model's config: the original one is that, and multimodal keys."""
    text_type = _TEXT_TYPES.get(settings.get("model_type", "llava"))
    if text_type is None:
        raise UserError(
            f"{directory / 'config.json'}: model_type {settings['model_type']!r} is not known; "
            f"known: {', '.join(_TEXT_TYPES)}"
        )
    own = {key: value for key, value in settings.items() if not _FOREIGN.match(key)}
    return AutoConfig.for_model(text_type, **own)


def _tune_tower(tower: VisionTower, weights: Mapping[str, Tensor], directory: Path) -> None:
    """Where the tower was tuned too, its weights are among the others."""
    own = {
        found.group(1): tensor for name, tensor in weights.items() if (found := _TOWER.search(name))
    }
    if not own:
        return
    buffers = {name for name, _ in tower.model.named_buffers()}
    expected = {name for name, _ in tower.model.named_parameters()}
    if own.keys() - buffers != expected:
        raise UserError(
            f"{directory}: its vision tower's weights are not those of {type(tower.model).__name__}"
            f", for example {sorted(own.keys() ^ expected)[0]}"
        )
    tower.model.load_state_dict(own, strict=False)


def _fill_projector(
    model: LlavaForConditionalGeneration, weights: Mapping[str, Tensor], directory: Path
) -> None:
    state = {
        f"{_LINEAR.get(found.group(1), found.group(1))}.{found.group(2)}": tensor
        for name, tensor in weights.items()
        if (found := _PROJECTOR.search(name))
    }
    projector = model.model.multi_modal_projector
    try:
        projector.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{directory}: its projector is not the two-layer MLP (mlp2x_gelu) that fits the "
            f"vision tower and the language model: {error}"
        ) from error


def _read_multimodal(directory: Path) -> dict[str, Tensor]:
    """Projector and vision tower, by name; the files' other tensors stay on the disk.

    As the original code loads them: a projector of its own file counts where the weights have none.
    """
    weights = {name: t for path in _weight_files(directory) for name, t in _read_file(path)}
    alone = directory / "mm_projector.bin"
    if any(_PROJECTOR.search(name) for name in weights):
        if alone.exists():
            logger.info("%s: not read; the weights beside it have a projector", alone)
    elif alone.exists():
        weights |= _read_file(alone)
    return weights


def _read_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        with explained(path.parent, "its weights", ""), safe_open(path, "pt") as tensors:
            names = [name for name in tensors.keys() if _is_multimodal(name)]  # noqa: SIM118
            yield from ((name, tensors.get_tensor(name)) for name in names)
    else:
        yield from ((n, t) for n, t in _read_torch(path).items() if _is_multimodal(n))


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content: dict[str, Tensor] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=True
        )
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise UserError(
            f"{path}: not a torch file of plain tensors (anything else is refused, because "
            "reading it could run code)"
        ) from error
    return content


def _weight_files(directory: Path) -> list[Path]:
    safetensors = sorted(directory.glob("model*.safetensors"))
    return safetensors or sorted(directory.glob("pytorch_model*.bin"))


def _is_multimodal(name: str) -> bool:
    return bool(_PROJECTOR.search(name) or _TOWER.search(name))
