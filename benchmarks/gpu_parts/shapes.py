"""Models and pools of the GPU benchmark: true architectures, random weights, drawn images.

Each is drawn once into the work folder, on the device itself, and then read by the project's own
loaders like any downloaded model. `toy` makes everything small enough for a CPU.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from drawn_models import draw_pool, draw_tokenizer, save_llava_processor
from torch import nn
from training_mix import write_pool
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from prism_tune.models.devices import pick_device

NUM_IMAGE_RECORDS = 624_610
"""Of LLaVA-665K."""

_VICUNA = {"vocab_size": 32_064, "hidden_size": 4096, "intermediate_size": 11_008}
_CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
_QWEN = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128_000,
    "tie_word_embeddings": False,
}
_QWEN_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TINY = {"vocab_size": 1100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
_TINY_CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
_KINDS = ("pad", "bos", "eos")


def draw_model(name: str, folder: Path, *, toy: bool) -> dict[str, Any]:
    """The model `name` in `folder / name`; what it is.

    Args:
        name: "llava" (LLaVA-1.5-7B), "llava_part" (its tower and 12 of its 32 decoder layers) or
            "qwen" (Qwen2.5-VL-7B).
        folder: of the work.
        toy: another, tiny shape.
    """
    torch.manual_seed(0)
    tokenizer = draw_tokenizer()
    if name == "qwen":
        tokenizer.add_tokens(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"], True)
        tokenizer._set_model_specific_special_tokens({"image_token": "<|image_pad|>"})
        model = _on_device(Qwen2_5_VLForConditionalGeneration, _qwen_config(tokenizer, toy))
        _save_qwen_processor(folder / name, tokenizer)
    else:
        config = _llava_config(tokenizer, num_layers=12 if name == "llava_part" else 32, toy=toy)
        model = _on_device(LlavaForConditionalGeneration, config)
        save_llava_processor(folder / name, tokenizer, config.vision_config.image_size)
    model.save_pretrained(folder / name)
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def draw_images(folder: Path, *, toy: bool) -> dict[str, Any]:
    """`images/`: one record an image, all different."""
    num_images, size = 40 if toy else 8_000, _image_size(toy)
    shutil.rmtree(folder / "images", ignore_errors=True)
    draw_pool(folder / "images", num_records=num_images, num_images=num_images, size=size)
    return {"images": num_images, "size": size}


def draw_mix(folder: Path, *, toy: bool) -> dict[str, Any]:
    """`mix/`: lengths like LLaVA-665K's."""
    num_records, size = 40 if toy else 640, _image_size(toy)
    shutil.rmtree(folder / "mix", ignore_errors=True)
    write_pool(folder / "mix", num_records, scale=1 if toy else 4, size=size)
    return {"records": num_records, "size": size}


def _image_size(toy: bool) -> tuple[int, int]:
    return (64, 48) if toy else (640, 480)


def _on_device(kind: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    device = pick_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = kind._from_config(config, dtype=dtype)
    _avoid_ends(model)
    return model


def _avoid_ends(model: PreTrainedModel) -> None:
    """No token is likelier than another by its scale; nothing overflows in float16."""
    head = model.get_output_embeddings()
    nn.init.normal_(head.weight, std=0.02)


def _llava_config(tokenizer: Any, *, num_layers: int, toy: bool) -> LlavaConfig:
    text = _TINY if toy else {**_VICUNA, "num_hidden_layers": num_layers}
    tower = _TINY_CLIP if toy else _CLIP_L
    num_heads = 2 if toy else 32
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            **tower,
            num_attention_heads=2 if toy else 16,
            image_size=28 if toy else 336,
            patch_size=14,
            projection_dim=768,
        ),
        text_config=LlamaConfig(
            **text,
            num_attention_heads=num_heads,
            num_key_value_heads=num_heads,
            max_position_embeddings=4096,
            **_marks(tokenizer),
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4 if toy else 576,
    )


def _qwen_config(tokenizer: Any, toy: bool) -> Qwen2_5_VLConfig:
    text, tower = (_TINY, _TINY) if toy else (_QWEN, _QWEN_TOWER)
    section = [4, 6, 6] if toy else [16, 24, 24]
    if toy:
        text = {**_TINY, "num_attention_heads": 2, "num_key_value_heads": 1}
        tower = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2}
        tower |= {"out_hidden_size": 64, "fullatt_block_indexes": [1]}
    rope = {"rope_type": "default", "mrope_section": section, "rope_theta": 1_000_000.0}
    ids = {
        f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>")
        for key, word in (
            ("image", "image_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    return Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, **_marks(tokenizer)},
        vision_config={**tower, "patch_size": 14, "spatial_merge_size": 2},
        **ids,
    )


def _marks(tokenizer: Any) -> dict[str, int]:
    return {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in _KINDS}


def _save_qwen_processor(folder: Path, tokenizer: Any) -> None:
    from transformers import Qwen2VLVideoProcessor  # needs torchvision, as this processor does

    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28},
            patch_size=14,
            merge_size=2,
            temporal_patch_size=2,
        ),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
