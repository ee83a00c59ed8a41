"""Tiny random models of the other families, built from their true configuration classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
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
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
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


def _qwen2_vl() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config={**_decoder(), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 16,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=IMAGE_TOKEN_ID,
    )
    return Qwen2VLForConditionalGeneration(config)


_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}


def _qwen3(model_type: str, *, mrope: list[int], **text: Any) -> PreTrainedModel:
    """Qwen3-VL and what came after, dense or of experts."""
    rope = {"rope_type": "default", "mrope_section": mrope, "rope_theta": 10000.0}
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 16,
        "initializer_range": 0.2,  # what deepstack adds is then not to be overlooked
    }
    if model_type.startswith("qwen3_vl"):
        vision["deepstack_visual_indexes"] = [0, 1]
    config = AutoConfig.for_model(
        model_type,
        text_config={**_decoder(), "head_dim": 8, "rope_parameters": rope, **text},
        vision_config=vision,
        image_token_id=IMAGE_TOKEN_ID,
    )
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    return model


def _qwen3_5(model_type: str = "qwen3_5", **text: Any) -> PreTrainedModel:
    """The first two layers are linear attention, the third is full."""
    return _qwen3(
        model_type,
        mrope=[1, 1, 2],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
        **text,
    )


def _mistral3() -> PreTrainedModel:
    config = Mistral3Config(
        vision_config={"model_type": "pixtral", **_tower(), "head_dim": 8, "image_size": 112},
        text_config={"model_type": "mistral", **_decoder(), "head_dim": 8, "sliding_window": None},
        image_token_index=IMAGE_TOKEN_ID,
        spatial_merge_size=2,
    )
    return Mistral3ForConditionalGeneration(config)


def _pixtral() -> PreTrainedModel:
    config = LlavaConfig(
        vision_config={"model_type": "pixtral", **_tower(), "head_dim": 8, "image_size": 112},
        text_config={"model_type": "mistral", **_decoder(), "head_dim": 8, "sliding_window": None},
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config)


def _vipllava() -> PreTrainedModel:
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(**_tower()),
        text_config=_llama(),
        image_token_index=IMAGE_TOKEN_ID,
        vision_feature_layers=[-2, -1],
    )
    return VipLlavaForConditionalGeneration(config)


def _glm4v() -> PreTrainedModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Glm4vConfig(
        text_config={**_decoder(), "rope_parameters": {**rope, "partial_rotary_factor": 1.0}},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 16,
            "image_size": 56,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=IMAGE_TOKEN_ID,
    )
    return Glm4vForConditionalGeneration(config)


def _aya_vision() -> PreTrainedModel:
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(**_tower(), vision_use_head=False),
        text_config={"model_type": "cohere2", **_decoder(), "head_dim": 8, "sliding_window": 128},
        image_token_index=IMAGE_TOKEN_ID,
        downsample_factor=2,
    )
    return AyaVisionForConditionalGeneration(config)


def _gemma3() -> PreTrainedModel:
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**_tower(), vision_use_head=False),
        text_config={
            **_decoder(),
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        mm_tokens_per_image=4,
        image_token_index=IMAGE_TOKEN_ID,
        boi_token_index=61,
        eoi_token_index=62,
    )
    return Gemma3ForConditionalGeneration(config)


TINY_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen3_vl": partial(_qwen3, "qwen3_vl", mrope=[2, 1, 1]),
    "qwen3_vl_moe": partial(_qwen3, "qwen3_vl_moe", mrope=[2, 1, 1], **_EXPERTS),
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": partial(_qwen3_5, "qwen3_5_moe", **_EXPERTS),
    "mistral3": _mistral3,
    "pixtral": _pixtral,
    "vipllava": _vipllava,
    "glm4v": _glm4v,
    "aya_vision": _aya_vision,
    "gemma3": _gemma3,
}
