"""The families' own processors at tiny size, each with a checkpoint of `tiny_families` that fits.

Three families' processors ask for a video processor, which needs torchvision. Images do not, so
here these three are built without one; everything that handles images and text is theirs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from support.tiny import build_tokenizer
from support.tiny_families import TINY_FAMILIES
from transformers import LlavaProcessor, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.aya_vision import AyaVisionProcessor
from transformers.models.gemma3 import Gemma3Processor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v import Glm4vProcessor
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3 import Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.internvl import InternVLProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next import LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision import LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl import Qwen3VLProcessor

from prism_tune.models.families import image_token_id

PINPOINTS = [[28, 56], [56, 28]]


class _WithoutVideo:
    """Put before a processor class: accepts `video_processor=None`."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        if name == "video_processor":
            return None
        return super().check_argument_for_proper_class(name, argument)


class _OneVision(_WithoutVideo, LlavaOnevisionProcessor):
    pass


class _Qwen2(_WithoutVideo, Qwen2VLProcessor):
    pass


class _Qwen2_5(_WithoutVideo, Qwen2_5_VLProcessor):
    pass


class _Qwen3(_WithoutVideo, Qwen3VLProcessor):
    pass


class _Glm4v(_WithoutVideo, Glm4vProcessor):
    pass


class _InternVL(_WithoutVideo, InternVLProcessor):
    pass


def _tokenizer(*tokens: str, image: str = "<image>", **named: str) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([*tokens, image, *named.values()], special_tokens=True)
    for name, token in {"image_token": image, **named}.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    return tokenizer


def _llava_next() -> Any:
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokenizer=build_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _llava_onevision() -> Any:
    return _OneVision(
        image_processor=LlavaOnevisionImageProcessorPil(
            size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=build_tokenizer(),
        video_processor=None,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
    )


def _qwen(processor_class: type = _Qwen2_5) -> Any:
    return processor_class(
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16},
            patch_size=14,
            merge_size=2,
            temporal_patch_size=2,
        ),
        tokenizer=_tokenizer("<|vision_start|>", "<|vision_end|>", image="<|image_pad|>"),
        video_processor=None,
    )


def _glm4v() -> Any:
    return _Glm4v(
        image_processor=Glm4vImageProcessorPil(
            size={"shortest_edge": 28 * 28 * 2, "longest_edge": 28 * 28 * 32},
            patch_size=14,
            merge_size=2,
            temporal_patch_size=2,
        ),
        tokenizer=_tokenizer("<|begin_of_image|>", "<|end_of_image|>", image="<|image|>"),
        video_processor=None,
    )


def _pixtral(spatial_merge_size: int = 1) -> Any:
    from transformers.models.pixtral import PixtralProcessor  # not without torchvision

    return PixtralProcessor(
        image_processor=PixtralImageProcessorPil(
            size={"longest_edge": 84}, patch_size={"height": 14, "width": 14}
        ),
        tokenizer=_tokenizer("[IMG_BREAK]", "[IMG_END]", image="[IMG]"),
        patch_size=14,
        spatial_merge_size=spatial_merge_size,
    )


def _vipllava() -> Any:
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokenizer=build_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _aya_vision() -> Any:
    tokens = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL"]
    return AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=_tokenizer("<|IMG_PATCH|>", *tokens),
        patch_size=14,
        img_size=28,
        downsample_factor=2,
    )


def _gemma3() -> Any:
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 28, "width": 28}),
        tokenizer=_tokenizer(
            image="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
        ),
        image_seq_length=4,
    )


def _internvl() -> Any:
    tokenizer = _tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    return _InternVL(
        image_processor=GotOcr2ImageProcessorPil(
            size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=None,
        image_seq_length=1,
    )


def _idefics3() -> Any:
    cells = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = _tokenizer(
        "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *cells
    )
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
        ),
        tokenizer=tokenizer,
        image_seq_len=1,
    )


TINY_PROCESSORS: dict[str, Callable[[], Any]] = {
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_5_vl": _qwen,
    "qwen2_vl": partial(_qwen, _Qwen2),
    "qwen3_vl": partial(_qwen, _Qwen3),
    "qwen3_vl_moe": partial(_qwen, _Qwen3),
    "qwen3_5": partial(_qwen, _Qwen3),
    "qwen3_5_moe": partial(_qwen, _Qwen3),
    "glm4v": _glm4v,
    "vipllava": _vipllava,
    "aya_vision": _aya_vision,
    "gemma3": _gemma3,
    "internvl": _internvl,
    "smolvlm": _idefics3,  # SmolVLM's inputs are Idefics3's
}

if importlib.util.find_spec("torchvision") is not None:
    TINY_PROCESSORS |= {"mistral3": partial(_pixtral, 2), "pixtral": _pixtral}


def build_family(name: str) -> tuple[PreTrainedModel, Any]:
    """A tiny random model of a family, and a processor whose tokens it knows."""
    torch.manual_seed(0)
    processor = TINY_PROCESSORS[name]()
    config = TINY_FAMILIES[name]().config
    config.get_text_config().vocab_size = len(processor.tokenizer)
    config.get_text_config().initializer_range = 0.2
    if name == "gemma3":
        config.boi_token_id = processor.image_token_id
        config.image_token_id = processor.tokenizer.image_token_id
    else:
        config.image_token_id = processor.image_token_id
    processor.image_token_id = image_token_id(config)  # as `load_processor` does
    vision_start = processor.tokenizer.convert_tokens_to_ids("<|vision_start|>")
    if vision_start is not None:
        config.vision_start_token_id = vision_start
    return type(TINY_FAMILIES[name]())(config).eval(), processor
