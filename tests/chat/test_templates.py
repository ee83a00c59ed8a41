"""What is learnt of a processor's own chat template."""

from __future__ import annotations

import pytest
from support.chat_templates import GLM, LLAVA_15, QWEN, QWEN_THINKING
from support.tiny import CHAT_TEMPLATE, build_processor, build_tokenizer
from support.tiny_processors import TINY_PROCESSORS

from prism_tune.chat.templates import check_end_token, end_token, is_llava15, wrap_image
from prism_tune.data.conversation import render, render_prompt
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
    assert end_token("processor", llava(LLAVA_15)) is None
    check_end_token("processor", qwen(QWEN_THINKING))
    with pytest.raises(UserError, match=r"writes no end token.*vicuna_v1 \(ends with </s>\)"):
        check_end_token("processor", llava(LLAVA_15))
    with pytest.raises(UserError, match=r"it has none; set model.template to .*chatml"):
        check_end_token("processor", llava(None))


def test_an_answer_may_end_where_the_next_question_begins():
    processor = qwen(GLM)
    processor.tokenizer.add_tokens(["<|user|>", "<|assistant|>"], special_tokens=True)
    check_end_token("processor", processor)
    rendered = render([*TURNS[2:], *TURNS[2:]], "processor", processor)
    exchange = "<|user|>\nSure?<|assistant|>\nYes"
    assert rendered.text == f"{exchange}{exchange}<|user|>"
    assert answers(rendered) == ["Yes<|user|>", "Yes<|user|>"]


def test_which_models_are_llava_15():
    assert is_llava15(llava(LLAVA_15), "llava")
    assert is_llava15(llava(None), "llava")
    assert not is_llava15(llava(LLAVA_15), "llava_next")
    assert not is_llava15(llava(CHAT_TEMPLATE), "llava")
    other = llava(LLAVA_15)
    other.tokenizer.eos_token = "<|im_end|>"
    assert not is_llava15(other, "llava")
