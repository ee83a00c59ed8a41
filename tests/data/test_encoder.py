"""The one way to a model's inputs, with every family's own processor."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from support.chat_templates import QWEN
from support.tiny import build_processor, build_tokenizer
from support.tiny_processors import TINY_PROCESSORS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from prism_tune.chat.templates import image_token, special_tokens
from prism_tune.config.sections import DataConfig
from prism_tune.data.collator import Collator
from prism_tune.data.conversation import render, render_prompt
from prism_tune.data.dataset import TuningDataset
from prism_tune.data.encoding.encoder import encode_prompts, encode_text
from prism_tune.data.encoding.lengths import estimate_lengths
from prism_tune.data.images import ImageError
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.records import open_pool
from prism_tune.schema import Turn

FAMILIES = sorted(TINY_PROCESSORS)
PROCESSORS = {name: build() for name, build in TINY_PROCESSORS.items()}


def record(question, answer, *images):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, **({"image": list(images)} if images else {})}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """One image, none, two, three, and a strip; markup in the texts."""
    folder = tmp_path_factory.mktemp("encoder")
    for name, size in {"a": (60, 40), "b": (30, 90), "strip": (210, 1)}.items():
        Image.new("RGB", size, "red").save(folder / f"{name}.png")
    records = [
        record("<image>\nwhat?", "red", "a.png"),
        record("how do you do?", "well"),
        record("<image>\n<image>\nsame?", "no", "a.png", "b.png"),
        record("<image> and <image> or <image>?", "none", "a.png", "b.png", "b.png"),
        record("What is <|image_pad|> or </s>?", "Write <s>old</s> here."),
        record("<image>\nread it", "a line", "strip.png"),
    ]
    (folder / "pool.json").write_text(json.dumps(records))
    return open_pool(DataConfig(records=str(folder / "pool.json"), num_workers=0))


def answer_of(example, processor):
    labels = example["labels"]
    return processor.tokenizer.decode(labels[labels != IGNORED_LABEL])


@pytest.mark.parametrize("family", FAMILIES)
def test_records_without_image_and_with_several_have_their_answer_as_label(family, pool):
    processor = PROCESSORS[family]
    examples = TuningDataset(pool, range(4), processor, "chatml", 2048)
    found = [answer_of(example, processor) for example in examples]
    assert found == [f"{answer}<|im_end|>" for answer in ("red", "well", "no", "none")]
    assert all(key not in examples[1] for key in ("pixel_values", "text_replacement_offsets"))
    assert [len(example["input_ids"]) for example in examples] == examples.lengths_N.tolist()
    assert "pixel_values" in Collator(processor)([examples[1]])


def test_several_images_of_a_record_are_not_taken_for_tiles_of_one():
    """OneVision: 5 image tokens each, not the 14 of an image alone that is cut into tiles."""
    processor = PROCESSORS["llava_onevision"]
    images = [Image.new("RGB", size) for size in ((60, 40), (30, 90))]
    together = encode_text("<image><image>", (), images, processor)
    alone = encode_text("<image>", (), images[:1], processor)
    is_image = together["input_ids"] == processor.image_token_id
    assert (int(is_image.sum()), together["pixel_values"].shape[:2]) == (10, (2, 1))
    assert int((alone["input_ids"] == processor.image_token_id).sum()) == 14


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_prompts_equals_each_prompt_alone(family, pool):
    processor = PROCESSORS[family]
    token = image_token(processor)
    red, blue = Image.new("RGB", (60, 40), "red"), Image.new("RGB", (30, 90), "blue")
    texts = [f"{token}\nwhat?", f"{token}{token}\nare they the same?"]
    texts.append(render_prompt("why </s>?", False, "chatml", processor))
    images = [[red], [blue, red], []]
    batch = encode_prompts(texts, images, processor)
    for row, (text, shown) in enumerate(zip(texts, images, strict=True)):
        alone = encode_prompts([text], [shown], processor)["input_ids"][0]
        is_token = batch["attention_mask"][row].bool()
        assert torch.equal(batch["input_ids"][row][is_token], alone)
        assert is_token[-1]  # padded on the left
    without = encode_prompts(texts[2:] * 2, [[], []], processor)
    assert torch.equal(without["input_ids"][0], without["input_ids"][1])
    assert "pixel_values" not in without


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", ["chatml", "vicuna_v1", "processor"])
def test_control_tokens_that_people_write_stay_text(family, template, pool):
    processor = PROCESSORS[family]
    chat = processor.chat_template
    processor.chat_template = chat or QWEN.replace("<|image_pad|>", image_token(processor))
    try:
        token = image_token(processor)
        asked = f"What is {token if token != '<image>' else '<pad>'} or <|im_start|>?"
        rendered = render(
            [Turn("human", asked), Turn("gpt", "Write <s>old</s>\n here.")], template, processor
        )
        example = encode_text(rendered.text, rendered.answer_spans, [], processor)
    finally:
        processor.chat_template = chat
    end = "</s>" if template == "vicuna_v1" else "<|im_end|>"
    assert answer_of(example, processor).strip() == f"Write <s>old</s>\n here.{end}"
    assert asked in processor.tokenizer.decode(example["input_ids"])
    learnt = example["labels"][example["labels"] != IGNORED_LABEL].tolist()
    control = processor.tokenizer.convert_tokens_to_ids(list(special_tokens(processor)))
    assert [token for token in learnt if token in control] == [learnt[-1]]
    assert len({len(value) for value in example.values()}) == 1


def test_lengths_count_control_tokens_as_the_text_they_are(pool):
    processor = PROCESSORS["qwen2_5_vl"]
    example = TuningDataset(pool, [4], processor, "chatml", 2048)[0]
    assert estimate_lengths(pool, [4], processor, "chatml").tolist() == [len(example["input_ids"])]


def test_control_tokens_stay_text_for_a_tokenizer_of_sentencepiece():
    """Which puts a space before the first word, and has no offsets of its own for it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["use <s> old </s> new ASSISTANT: USER."], trainer)
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.image_token, fast.image_token_id = "<image>", 3
    processor = build_processor(fast)
    rendered = render([Turn("human", "new"), Turn("gpt", "use <s>old</s> new")], "plain", processor)
    example = encode_text(rendered.text, rendered.answer_spans, [], processor)
    assert answer_of(example, processor).strip() == "use <s>old</s> new<unk>"  # a line's end
    assert {1, 2}.isdisjoint(example["labels"].tolist())


def test_an_image_that_the_processor_refuses_is_named(pool):
    examples = TuningDataset(pool, [0, 5], PROCESSORS["qwen2_5_vl"], "chatml", 2048)
    assert examples.lengths_N.tolist() == [28, -1]
    found = examples.find_unusable([0, 1])
    assert {number: item.reason for number, item in found.items()} == {1: "image_refused"}
    assert "record 5" in found[1].detail
    assert "210 x 1 pixels, which the model's processor refuses: absolute" in found[1].detail
    with pytest.raises(ImageError, match="aspect ratio"):
        examples.encode(5)
    llava = TuningDataset(pool, [5], build_processor(build_tokenizer()), "chatml", 2048)
    assert llava.lengths_N.tolist() == [len(llava[0]["input_ids"])]


@pytest.mark.parametrize("size", [(64, 48), (48, 65), (50, 50), (70, 3)])
@pytest.mark.parametrize("pads", [True, False])
def test_an_image_is_padded_pixel_for_pixel_as_llavas_processor_pads_it(size, pads):
    """It is handed over as a square already, which is a third faster."""
    processor = build_processor(build_tokenizer())
    processor.image_processor.do_pad = pads
    pixels = torch.arange(size[0] * size[1] * 3, dtype=torch.uint8).numpy()
    image = Image.frombytes("RGB", size, (pixels * 7).tobytes())
    inputs = encode_prompts([image_token(processor)], [[image]], processor)
    expected = processor.image_processor([[image]], return_tensors="pt").pixel_values
    assert torch.equal(inputs["pixel_values"], expected)
