"""Tiny random checkpoints of true architectures, and drawn images: small, but nothing faked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>"]
COLOURS = ["red", "green", "blue", "yellow"]
SHAPES = ["circle", "square"]
CORPUS = 4 * [f"what shape is the {c} {s}? is it a {s}? yes no" for c in COLOURS for s in SHAPES]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(
    corpus: Iterable[str] = CORPUS, vocab_size: int = 320
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; every text round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={"image_token": "<image>"},
    )


def save_tiny_llava(directory: Path, *, num_layers: int = 4, width: int = 32) -> Path:
    """A LLaVA-1.5 (CLIP + mlp2x_gelu + Llama) with random weights: 28 px images, 4 image tokens."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=24,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.save_pretrained(directory)
    build_processor(tokenizer).save_pretrained(directory)
    return directory


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """LLaVA-1.5's processor: pad to square, 28 px, 2 x 2 patches, the class token dropped."""
    image_processor = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def draw_image(path: Path, index: int) -> None:
    """A coloured shape whose place, colour and size depend on `index`."""
    image = Image.new("RGB", (40, 32), (index * 7 % 256, 120, 90))
    draw = ImageDraw.Draw(image)
    box = (2 + index % 9, 3, 20 + index % 9, 21)
    drawer = draw.ellipse if index % 2 == 0 else draw.rectangle
    drawer(box, fill=COLOURS[index % len(COLOURS)])
    image.save(path)


def draw_pool(directory: Path, num_images: int = 16) -> Path:
    """`pool.json` in LLaVA format over drawn images: two sources, shared images, some text-only.

    Per image one `shape` record; per even image one `colour` record; every eighth image adds a
    text-only record.
    """
    images = directory / "images"
    images.mkdir(parents=True)
    records: list[dict[str, object]] = []
    for i in range(num_images):
        draw_image(images / f"{i}.png", i)
        shape = SHAPES[i % 2]
        colour = COLOURS[i % len(COLOURS)]
        records.append(_record(i, "shape", f"<image>\nwhat shape is image {i}?", shape))
        if i % 2 == 0:
            records.append(_record(i, "colour", "<image>\nwhat color is it?", colour))
        if i % 8 == 0:
            records.append(_record(i, "text", f"is {i} even?", "yes", with_image=False))
    path = directory / "pool.json"
    path.write_text(json.dumps(records))
    return path


def _record(
    index: int, source: str, question: str, answer: str, *, with_image: bool = True
) -> dict[str, object]:
    record: dict[str, object] = {
        "id": f"{source}-{index}",
        "source": source,
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": answer},
        ],
    }
    if with_image:
        record["image"] = f"{index}.png"
    return record
