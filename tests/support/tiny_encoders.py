"""Tiny random dual encoders of the true architectures: CLIP and SigLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from support.tiny import build_tokenizer
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

TEXT_LENGTH = {"clip": 24, "siglip": 16}


def save_encoder(family: Literal["clip", "siglip"], folder: Path) -> Path:
    """A checkpoint with its processor: 28 px images, short texts."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    tower = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": TEXT_LENGTH[family],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**tower, "image_size": 28, "patch_size": 14}
    if family == "clip":
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        model = CLIPModel(config)
        images = CLIPImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        )
        processor = CLIPProcessor(images, tokenizer)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        images = SiglipImageProcessorPil(size={"height": 28, "width": 28})
        processor = SiglipProcessor(images, tokenizer)
    for parameter in model.parameters():
        parameter.data *= 3  # random weights of the usual size tell no two texts apart
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
