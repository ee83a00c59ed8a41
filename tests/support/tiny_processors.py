"""The families' own processors at tiny size, each with a checkpoint of `tiny_families` that fits.

Three families' processors ask for a video processor, which needs torchvision. Images do not, so
here these three are built without one; everything that handles images and text is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from support.tiny import build_tokenizer
from support.tiny_families import TINY_FAMILIES
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3 import Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.internvl import InternVLProcessor
from transformers.models.llava_next import LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision import LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

PINPOINTS = [[28, 56], [56, 28]]


class _WithoutVideo:
    """Put before a processor class: accepts `video_processor=None`."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        if name == "video_processor":
            return None
        return super().check_argument_for_proper_class(name, argument)


class _OneVision(_WithoutVideo, LlavaOnevisionProcessor):
    pass


class _Qwen(_WithoutVideo, Qwen2_5_VLProcessor):
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


def _qwen2_5_vl() -> Any:
    return _Qwen(
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16},
            patch_size=14,
            merge_size=2,
            temporal_patch_size=2,
        ),
        tokenizer=_tokenizer("<|vision_start|>", "<|vision_end|>", image="<|image_pad|>"),
        video_processor=None,
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
    "qwen2_5_vl": _qwen2_5_vl,
    "internvl": _internvl,
    "smolvlm": _idefics3,  # SmolVLM's inputs are Idefics3's
}


def build_family(name: str) -> tuple[PreTrainedModel, Any]:
    """A tiny random model of a family, and a processor whose tokens it knows."""
    torch.manual_seed(0)
    processor = TINY_PROCESSORS[name]()
    config = TINY_FAMILIES[name]().config
    config.get_text_config().vocab_size = len(processor.tokenizer)
    config.get_text_config().initializer_range = 0.2
    config.image_token_id = processor.image_token_id
    vision_start = processor.tokenizer.convert_tokens_to_ids("<|vision_start|>")
    if vision_start is not None:
        config.vision_start_token_id = vision_start
    return type(TINY_FAMILIES[name]())(config).eval(), processor
