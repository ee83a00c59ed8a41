"""What is learnt of a processor's own chat template."""

from __future__ import annotations

import pytest
from PIL import Image
from support.chat_templates import (
    GLM,
    LLAVA_15,
    LLAVA_MISTRAL,
    QWEN,
    QWEN_THINKING,
    VIPLLAVA,
)
from support.tiny import CHAT_TEMPLATE, build_processor, build_tokenizer
from support.tiny_processors import TINY_PROCESSORS

from prism_tune.chat.templates import (
    check_end_token,
    end_token,
    find_written_end,
    speaks_vicuna,
    wrap_image,
)
from prism_tune.data.conversation import render, render_prompt
from prism_tune.data.encoding.encoder import encode_text
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.errors import UserError
from prism_tune.schema import Turn

WRAPPED = "<|vision_start|><|image_pad|><|vision_end|>"
TURNS = [
    Turn("human", "<image>\nWhat is it?"),
    Turn("gpt", "A cat."),
    Turn("human", "Sure?"),
    Turn("gpt", "Yes"),
]


def qwen(chat_template):
    processor = TINY_PROCESSORS["qwen2_5_vl"]()
    processor.chat_template = chat_template
    return processor


def llava(chat_template):
    processor = build_processor(build_tokenizer())
    processor.chat_template = processor.tokenizer.chat_template = chat_template
    return processor


def answers(rendered):
    return [rendered.text[start:end] for start, end in rendered.answer_spans]


@pytest.mark.parametrize(
    ("processor", "image"),
    [
        (qwen(QWEN), WRAPPED),
        (qwen(QWEN_THINKING), WRAPPED),
        (qwen(None), "<|image_pad|>"),
        (llava(CHAT_TEMPLATE), "<image>"),
        (llava(None), "<image>"),
    ],
)
def test_a_built_in_template_shows_an_image_as_the_family_does(processor, image):
    asked = f"<|im_start|>user\n{image}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    assert wrap_image(processor) == image
    assert render_prompt("What is it?", True, "chatml", processor) == asked
    assert render(TURNS, "chatml", processor).text.startswith(asked + "A cat.<|im_end|>\n")


def test_every_answer_of_a_thinking_template_stands_behind_the_prompt_it_is_generated_from():
    rendered = render(TURNS, "processor", qwen(QWEN_THINKING))
    header = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert rendered.text == (
        f"<|im_start|>user\n{WRAPPED}What is it?<|im_end|>\n{header}A cat.<|im_end|>\n"
        f"<|im_start|>user\nSure?<|im_end|>\n{header}Yes<|im_end|>\n"
    )
    assert answers(rendered) == ["A cat.<|im_end|>", "Yes<|im_end|>"]
    prompt = render_prompt("What is it?", True, "processor", qwen(QWEN_THINKING))
    assert rendered.text[: rendered.answer_spans[0][0]] == prompt


def test_texts_that_look_like_thinking_stay_as_they_are():
    turns = [*TURNS[:3], Turn("gpt", "<think>\nhm\n</think>\n\nYes")]
    rendered = render(turns, "processor", qwen(QWEN_THINKING))
    assert answers(rendered)[1] == "<think>\nhm\n</think>\n\nYes<|im_end|>"


def test_a_chat_template_ends_its_answers_or_is_refused():
    assert end_token("processor", qwen(QWEN)) == "<|im_end|>"
    check_end_token("processor", qwen(QWEN_THINKING))
    endless = llava(LLAVA_15)
    endless.tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"writes no end token.*vicuna_v1 \(ends with </s>\)"):
        check_end_token("processor", endless)
    with pytest.raises(UserError, match=r"it has none; set model.template to .*chatml"):
        check_end_token("processor", llava(None))


ENDLESS = {
    "llava_15": (
        LLAVA_15,
        "USER: <image>\nWhat is it? ASSISTANT: A cat.</s> USER: Sure? ASSISTANT: Yes</s> ",
    ),
    "mistral": (
        LLAVA_MISTRAL,
        "[INST] <image>\nWhat is it? [/INST] A cat.</s> [INST] Sure? [/INST] Yes</s> ",
    ),
    "vipllava": (
        VIPLLAVA,
        "###Human: <image>\nWhat is it?###Assistant: A cat.</s>"
        "###Human: Sure?###Assistant: Yes</s>",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_where_a_template_ends_no_answer_the_tokenizers_end_of_texts_does(name):
    template, text = ENDLESS[name]
    processor = llava(template)
    check_end_token("processor", processor)
    assert find_written_end(processor) is None
    assert end_token("processor", processor) == "</s>"
    rendered = render(TURNS, "processor", processor)
    assert rendered.text == text
    assert answers(rendered) == [" A cat.</s>", " Yes</s>"]
    prompt = render_prompt("What is it?", True, "processor", processor)
    assert prompt == text[: rendered.answer_spans[0][0]]
    example = encode_text(
        rendered.text, rendered.loss_spans, [Image.new("RGB", (28, 28))], processor
    )
    learnt = example["labels"][example["labels"] != IGNORED_LABEL].tolist()
    assert processor.tokenizer.decode(learnt) == " A cat.</s> Yes</s>"
    assert learnt.count(processor.tokenizer.eos_token_id) == 2


def test_people_may_write_what_a_template_mistypes():
    turns = [Turn("human", r"What is <\s>?"), Turn("gpt", r"It is <\s>")]
    rendered = render(turns, "processor", llava(LLAVA_MISTRAL))
    assert rendered.text == r"[INST] What is <\s>? [/INST] It is <\s></s> "


def test_a_tokenizers_own_template_is_asked_where_the_processor_has_none():
    processor = llava(CHAT_TEMPLATE)
    processor.chat_template = None
    asked = "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    assert render_prompt("What is it?", True, "processor", processor) == asked
    rendered = render(TURNS, "processor", processor)
    assert rendered.text.startswith(asked + "A cat.<|im_end|>\n")
    assert answers(rendered) == ["A cat.<|im_end|>", "Yes<|im_end|>"]


def test_an_answer_may_end_where_the_next_question_begins():
    processor = qwen(GLM)
    processor.tokenizer.add_tokens(["<|user|>", "<|assistant|>"], special_tokens=True)
    check_end_token("processor", processor)
    rendered = render([*TURNS[2:], *TURNS[2:]], "processor", processor)
    exchange = "<|user|>\nSure?<|assistant|>\nYes"
    assert rendered.text == f"{exchange}{exchange}<|user|>"
    assert answers(rendered) == ["Yes<|user|>", "Yes<|user|>"]


def test_which_models_are_asked_as_llava_15_is():
    assert speaks_vicuna(llava(LLAVA_15), "llava")
    assert speaks_vicuna(llava(None), "llava")
    assert speaks_vicuna(llava(LLAVA_15), "llava_next")
    assert not speaks_vicuna(llava(None), "llava_next")
    assert not speaks_vicuna(llava(LLAVA_MISTRAL), "llava_next")
    assert not speaks_vicuna(llava(LLAVA_15), "vipllava")
    assert not speaks_vicuna(llava(CHAT_TEMPLATE), "llava")
    other = llava(LLAVA_15)
    other.tokenizer.eos_token = "<|im_end|>"
    assert not speaks_vicuna(other, "llava")
