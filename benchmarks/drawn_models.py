"""What the extraction benchmarks run on: a random LLaVA of any size, and pools of JPEG files.

The tokenizer is the tests' (`tests/tiny.py`), trained on what the prompts say, so that they have
about as many tokens as with a real one.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import orjson
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.llava import LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.tiny import CHAT_TEMPLATE, build_tokenizer

from prism_tune.chat.builtin_templates import SYSTEM

PATCH_PIXELS = 14
_GRAIN = 24  # a 640 x 480 file of about 100 KB
QUESTION = "What does picture {} show, and where? "
ANSWER = "A smooth pattern, number {}, all over it."


def save_llava(
    folder: Path,
    *,
    num_layers: int,
    width: int,
    vision_layers: int,
    image_pixels: int,
    vision_width: int = 384,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A LLaVA-1.5 with random weights, its tokenizer and its processor.

    Heads are 64 wide, or 128 from a width of 4,096 on; feed-forward layers 4 times as wide as the
    vision tower and 8/3 times as wide as the decoder.
    """
    torch.manual_seed(0)
    tokenizer = draw_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=vision_width,
        intermediate_size=4 * vision_width,
        num_hidden_layers=vision_layers,
        num_attention_heads=vision_width // 64,
        image_size=image_pixels,
        patch_size=PATCH_PIXELS,
    )
    num_heads = max(1, width // (128 if width >= 4096 else 64))
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(image_pixels // PATCH_PIXELS) ** 2,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    save_llava_processor(folder, tokenizer, image_pixels)
    return folder


def draw_tokenizer() -> PreTrainedTokenizerFast:
    """Trained on what the prompts say."""
    words = [SYSTEM, QUESTION.format(""), ANSWER.format(""), "USER: ASSISTANT: Look closely. "]
    return build_tokenizer(words * 4, vocab_size=1000)


def save_llava_processor(
    folder: Path, tokenizer: PreTrainedTokenizerFast, image_pixels: int
) -> None:
    """LLaVA-1.5's: pad to a square, patches of 14 pixels, the class token dropped."""
    LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            do_pad=True,
            size={"shortest_edge": image_pixels},
            crop_size={"height": image_pixels, "width": image_pixels},
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PIXELS,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def draw_pool(
    folder: Path, *, num_records: int, num_images: int, size: tuple[int, int], text_only: float = 0
) -> Path:
    """`pool.json` over `num_images` distinct JPEG files in `images/`, some records without image.

    The images are smooth colours under a grain, so that they take as long to decode as photographs.

    Args:
        folder: where.
        num_records: image records take the images in turn.
        num_images: distinct files.
        size: (width, height) in pixels.
        text_only: the share of records without image.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    for part in range(0, num_images, 1000):
        (images / f"{part // 1000:04d}").mkdir()
    draw = partial(_draw_image, images, size)
    with ProcessPoolExecutor(mp_context=get_context("fork")) as processes:
        list(processes.map(draw, range(num_images), chunksize=64))
    random = np.random.default_rng(0)
    path = folder / "pool.json"
    with path.open("wb") as file:
        for number in range(num_records):
            record = _make_record(number, num_images, random.random() < text_only)
            file.write((b"[" if number == 0 else b",\n") + orjson.dumps(record))
        file.write(b"]")
    return path


def _draw_image(images: Path, size: tuple[int, int], number: int) -> None:
    """One file, the same every time."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    grain = random.integers(-_GRAIN, _GRAIN, (size[1], size[0], 3), dtype=np.int16)
    picture = Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))
    picture.save(images / name_image(number), quality=85)


def name_image(number: int) -> str:
    """Folders of 1,000 files each, as no file system likes 300,000 in one."""
    return f"{number // 1000:04d}/{number}.jpg"


def _make_record(number: int, num_images: int, is_text_only: bool) -> dict[str, object]:
    question = QUESTION.format(number) + "Look closely. " * (number % 5)
    placeholder = "" if is_text_only else "<image>\n"
    record: dict[str, object] = {
        "id": str(number),
        "source": "text" if is_text_only else f"source_{number % 6}",
        "conversations": [
            {"from": "human", "value": placeholder + question},
            {"from": "gpt", "value": ANSWER.format(number)},
        ],
    }
    if not is_text_only:
        record["image"] = name_image(number % num_images)
    return record
