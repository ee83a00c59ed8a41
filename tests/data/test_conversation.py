from __future__ import annotations

import jinja2
import pytest
from support.tiny import build_tokenizer

from prism_tune.chat.builtin_templates import LAYOUTS, chat_template
from prism_tune.chat.templates import check_end_token, end_token
from prism_tune.data.conversation import adds_special_tokens, render, render_prompt
from prism_tune.errors import UserError
from prism_tune.schema import Turn

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
TURNS = [
    Turn("human", "<image>\nWhat is it?"),
    Turn("gpt", "A cat."),
    Turn("human", "Sure?"),
    Turn("gpt", "Yes"),
]
EXPECTED = {
    "vicuna_v1": (
        f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Sure? ASSISTANT: Yes</s>",
        [" A cat.</s>", " Yes</s>"],
    ),
    "phi": (
        f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cat.<|endoftext|>"
        "USER: Sure? ASSISTANT: Yes<|endoftext|>",
        [" A cat.<|endoftext|>", " Yes<|endoftext|>"],
    ),
    "chatml": (
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n",
        ["A cat.<|im_end|>", "Yes<|im_end|>"],
    ),
    "llama3": (
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA cat.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSure?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>",
        ["A cat.<|eot_id|>", "Yes<|eot_id|>"],
    ),
    "plain": ("<image>A cat.\nYes\n", ["A cat.\n", "Yes\n"]),
}


class ChatProcessor:
    """Renders with a chat template, as a transformers processor does."""

    image_token = "<|image_pad|>"

    def __init__(self, chat_template, *tokens):
        self.tokenizer = build_tokenizer()
        self.tokenizer.add_tokens(["[end]", *tokens], special_tokens=True)
        self.chat_template = chat_template
        self._template = jinja2.Environment().from_string(chat_template)

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt, **options):
        assert not tokenize
        return self._template.render(messages=messages, generate=add_generation_prompt, **options)


CHAT = (
    "{% for m in messages %}[{{ m.role }}]{% for c in m.content %}"
    "{% if c.type == 'image' %}<v><|image_pad|></v>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}[end]\n{% endfor %}{% if generate %}[assistant]{% endif %}"
)


@pytest.mark.parametrize("template", EXPECTED)
def test_text_and_answer_spans(template):
    text, answers = EXPECTED[template]
    rendered = render(TURNS, template)
    assert rendered.text == text
    assert [text[start:end] for start, end in rendered.answer_spans] == answers


SYSTEM_LINES = {
    "vicuna_v1": "Be brief. USER: ",
    "phi": "Be brief. USER: ",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n",
}


@pytest.mark.parametrize("template", SYSTEM_LINES)
def test_a_system_line_stands_in_place_of_the_templates_own(template):
    own, plain = render(TURNS, template, system="Be brief."), render(TURNS, template)
    assert own.text.startswith(SYSTEM_LINES[template] + "<image>\nWhat is it?")
    answers = [own.text[start:end] for start, end in own.answer_spans]
    assert answers == EXPECTED[template][1]
    asked = own.text.index("<image>")
    assert own.text[asked:] == plain.text[plain.text.index("<image>") :]


@pytest.mark.parametrize("template", SYSTEM_LINES)
def test_a_system_line_is_where_an_assembled_models_processor_writes_it(template):
    """The Jinja template beside an assembled model writes what training has written."""
    end = LAYOUTS[template].end_token
    processor = ChatProcessor(chat_template(template, "<|image_pad|>"), end)
    processor._template = jinja2.Environment().from_string(
        processor.chat_template.replace("add_generation_prompt", "generate")
    )
    turns = [Turn("human", "What?"), Turn("gpt", "A cat.")]
    expected = render(turns, template, processor, system="Be brief.")
    assert render(turns, "processor", processor, system="Be brief.").text == expected.text


def test_the_alignment_stage_has_no_system_line():
    assert render(TURNS, "plain", system="Be brief.") == render(TURNS, "plain")


def test_the_processors_template_gets_the_system_line():
    rendered = render(TURNS, "processor", ChatProcessor(CHAT), system="Be brief.")
    assert rendered.text.startswith("[system]Be brief.[end]\n[user]<v><|image_pad|></v>")
    spans = [rendered.text[start:end] for start, end in rendered.answer_spans]
    assert spans == ["A cat.[end]", "Yes[end]"]


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}", "refuses"),
        (
            "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{% for c in m.content %}"
            "{{ c.text }}{% endfor %}[end]\n{% endfor %}{% if generate %}[assistant]{% endif %}",
            "drops text .*system line 'Be brief.'",
        ),
    ],
)
def test_a_template_without_system_lines_is_refused(chat, message):
    processor = ChatProcessor(chat)

    def refuse(text):
        raise jinja2.TemplateError(text)

    processor._template.globals["raise_exception"] = refuse
    with pytest.raises(UserError, match=message):
        render(TURNS[2:], "processor", processor, system="Be brief.")


@pytest.mark.parametrize("template", [*EXPECTED, "processor"])
def test_answers_that_are_not_learnt_have_no_loss_span(template):
    turns = [TURNS[0], Turn("gpt", "A cat.", has_loss=False), *TURNS[2:]]
    processor = ChatProcessor(CHAT) if template == "processor" else None
    rendered = render(turns, template, processor)
    assert rendered.text == render(TURNS, template, processor).text
    assert len(rendered.answer_spans) == 2
    assert rendered.loss_spans == rendered.answer_spans[1:]


@pytest.mark.parametrize("template", EXPECTED)
def test_the_prompt_is_what_stands_before_the_answer(template):
    rendered = render(TURNS[:2], template)
    prompt = render_prompt("What is it?", True, template)
    assert rendered.text[: rendered.answer_spans[0][0]] == prompt


def test_official_llava_prompt():
    expected = f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:"
    assert render_prompt("What is it?", True, "vicuna_v1") == expected
    assert render_prompt("Hi", False, "vicuna_v1") == f"{SYSTEM} USER: Hi ASSISTANT:"


def test_several_images_in_a_prompt():
    prompt = render_prompt("same?", True, "plain", num_images=2)
    assert prompt == "<image><image>"
    assert "<image>\n<image>\nsame?" in render_prompt("same?", True, "chatml", num_images=2)


def test_placeholder_becomes_the_processors_token_where_it_stands():
    turns = [Turn("human", "what?\n<image>"), Turn("gpt", "cat")]
    rendered = render(turns, "chatml", ChatProcessor(CHAT))
    assert rendered.text.startswith("<|im_start|>user\nwhat?\n<|image_pad|><|im_end|>")
    start, end = rendered.answer_spans[0]
    assert rendered.text[start:end] == "cat<|im_end|>"


def test_chat_template_of_the_processor():
    rendered = render(TURNS, "processor", ChatProcessor(CHAT))
    assert rendered.text == (
        "[user]<v><|image_pad|></v>What is it?[end]\n[assistant]A cat.[end]\n"
        "[user]Sure?[end]\n[assistant]Yes[end]\n"
    )
    spans = [rendered.text[start:end] for start, end in rendered.answer_spans]
    assert spans == ["A cat.[end]", "Yes[end]"]
    prompt = render_prompt("What is it?", True, "processor", ChatProcessor(CHAT))
    assert prompt == "[user]<v><|image_pad|></v>What is it?[end]\n[assistant]"


@pytest.mark.parametrize(
    "chat",
    [
        "{% for m in messages[-1:] %}{{ m.content[-1].text }}{% endfor %}",
        "{% for m in messages %}[{{ m.role }}]{% endfor %}",
        "{% for m in messages %}{% if m.role == 'user' %}?{% else %}{{ m.content[0].text }}"
        "{% endif %}{% endfor %}",
    ],
)
def test_chat_template_that_loses_turns_is_refused(chat):
    with pytest.raises(UserError, match="rewrites earlier turns or drops text"):
        render(TURNS, "processor", ChatProcessor(chat))


def test_the_answer_is_not_mistaken_for_an_earlier_word():
    turns = [Turn("human", "Yes or no?"), Turn("gpt", "Yes"), *TURNS[2:]]
    rendered = render(turns, "processor", ChatProcessor(CHAT))
    assert rendered.answer_spans[0][0] == len("[user]Yes or no?[end]\n[assistant]")


def test_end_tokens():
    templates = ["vicuna_v1", "chatml", "llama3", "phi", "plain", "processor"]
    ends = ["</s>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", None, "[end]"]
    processor = ChatProcessor(CHAT)
    assert [end_token(template, processor) for template in templates] == ends


def test_template_has_to_fit_the_tokenizer():
    processor = ChatProcessor(CHAT)
    check_end_token("vicuna_v1", processor)
    check_end_token("chatml", processor)
    with pytest.raises(UserError, match=r"llama3 ends answers with '<\|eot_id\|>', which is not"):
        check_end_token("llama3", processor)


def test_a_beginning_in_the_text_is_not_doubled():
    assert not adds_special_tokens("<s>hi", build_tokenizer())
    assert adds_special_tokens("hi", build_tokenizer())
