"""The families' processors as users have them, with video processors: where torchvision is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from support.tiny import SHAPES, draw_image
from support.tiny_processors import build_family

_VIDEO = {
    "LlavaOnevisionProcessor": "LlavaOnevisionVideoProcessor",
    "Qwen2VLProcessor": "Qwen2VLVideoProcessor",
    "Qwen2_5_VLProcessor": "Qwen2VLVideoProcessor",
    "Qwen3VLProcessor": "Qwen3VLVideoProcessor",
    "Glm4vProcessor": "Glm4vVideoProcessor",
    "InternVLProcessor": "InternVLVideoProcessor",
}


def save_whole_family(name: str, folder: Path) -> Path:
    """A tiny random checkpoint and its processor, which `AutoProcessor` loads."""
    model, processor = build_family(name)
    model.save_pretrained(folder)
    _with_video(processor).save_pretrained(folder)
    return folder


def _with_video(processor: Any) -> Any:
    names = [cls.__name__ for cls in type(processor).__mro__ if cls.__name__ in _VIDEO]
    if not names:
        return processor
    options = {
        key: getattr(processor, key)
        for key in ("image_seq_length", "num_image_tokens", "vision_feature_select_strategy")
        if hasattr(processor, key)
    }
    return getattr(transformers, names[0])(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        video_processor=getattr(transformers, _VIDEO[names[0]])(),
        chat_template=processor.tokenizer.chat_template,
        **options,
    )


def draw_mixed_pool(folder: Path) -> Path:
    """Twelve records: one image, two images apart and interleaved with text, and none."""
    images = folder / "images"
    images.mkdir(parents=True)
    records = []
    for i in range(12):
        draw_image(images / f"{i}.png", i)
        shown: dict[str, Any] = {"image": f"{i}.png"}
        question = "<image>\nwhat shape is it?"
        if i % 4 == 1:
            shown = {"image": [f"{i}.png", f"{i - 1}.png"]}
            question = "<image>\n<image>\nwhich is a circle?"
        elif i % 4 == 2:
            shown = {"image": [f"{i}.png", f"{i - 1}.png"]}
            question = "this <image> is a square; and <image> what is it?"
        elif i % 4 == 3:
            shown, question = {}, f"is {i} even?"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": SHAPES[i % 2]}]
        records.append({"id": str(i), "source": "mixed", **shown, "conversations": turns})
    (folder / "pool.json").write_text(json.dumps(records))
    return folder / "pool.json"
