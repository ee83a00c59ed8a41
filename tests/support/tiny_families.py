"""Tiny random models of the other families, built from their true configuration classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    CLIPVisionConfig,
    Idefics3Config,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

NUM_LAYERS = 3
IMAGE_TOKEN_ID = 60


def text_inputs() -> dict[str, torch.Tensor]:
    """One text-only row of 8 tokens."""
    input_ids = torch.arange(1, 9)[None]
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def _llama() -> LlamaConfig:
    return LlamaConfig(**_decoder())


def _qwen2() -> Qwen2Config:
    return Qwen2Config(**_decoder())


def _decoder() -> dict[str, int]:
    return {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }


def _tower() -> dict[str, int]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }


def _llava() -> PreTrainedModel:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_tower()),
        text_config=_llama(),
        image_token_index=IMAGE_TOKEN_ID,
    )
    return LlavaForConditionalGeneration(config)


def _llava_next() -> PreTrainedModel:
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_tower()),
        text_config=_llama(),
        image_token_index=IMAGE_TOKEN_ID,
        image_grid_pinpoints=[[28, 56], [56, 28]],
    )
    return LlavaNextForConditionalGeneration(config)


def _llava_onevision() -> PreTrainedModel:
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_tower(), vision_use_head=False),
        text_config=_qwen2(),
        image_token_index=IMAGE_TOKEN_ID,
        image_grid_pinpoints=[[28, 56], [56, 28]],
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _internvl() -> PreTrainedModel:
    config = InternVLConfig(
        vision_config={**_tower(), "image_size": [28, 28], "patch_size": [14, 14]},
        text_config=_qwen2(),
        image_token_id=IMAGE_TOKEN_ID,
        image_seq_length=1,
    )
    return InternVLForConditionalGeneration(config)


def _smolvlm() -> PreTrainedModel:
    config = SmolVLMConfig(
        vision_config=_tower(), text_config=_llama(), image_token_id=IMAGE_TOKEN_ID, scale_factor=2
    )
    assert isinstance(config, Idefics3Config | SmolVLMConfig)
    return SmolVLMForConditionalGeneration(config)


def _qwen2_5_vl() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={**_decoder(), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "fullatt_block_indexes": [1],
        },
        image_token_id=IMAGE_TOKEN_ID,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


TINY_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "qwen2_5_vl": _qwen2_5_vl,
}
