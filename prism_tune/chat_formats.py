"""Chat templates with images for assembled models, whose language models' own cannot show any.

Out: a Jinja template for the processor that writes the same text as the built-in template of the
same name (`model.template`) does for training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ChatFormat = Literal["vicuna_v1", "phi", "chatml", "llama3"]

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class _Format:
    """What stands before and after a system line, a question and an answer."""

    system: tuple[str, str]
    question: tuple[str, str]
    answer: tuple[str, str]
    header: str
    default_system: str = ""


def _chat_v1(end_token: str) -> _Format:
    return _Format(
        ("", " "), ("USER: ", ""), (" ", end_token), " ASSISTANT:", default_system=_VICUNA_SYSTEM
    )


def _llama3_header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


_FORMATS: dict[ChatFormat, _Format] = {
    "vicuna_v1": _chat_v1("</s>"),
    "phi": _chat_v1("<|endoftext|>"),
    "chatml": _Format(
        ("<|im_start|>system\n", "<|im_end|>\n"),
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("", "<|im_end|>\n"),
        "<|im_start|>assistant\n",
    ),
    "llama3": _Format(
        (_llama3_header("system"), "<|eot_id|>"),
        (_llama3_header("user"), "<|eot_id|>"),
        ("", "<|eot_id|>"),
        _llama3_header("assistant"),
    ),
}


def chat_template(name: ChatFormat, image_token: str) -> str:
    """The Jinja template; an image is the image token on a line of its own.

    Message contents may be text or a list of `{"type": "image"}` and `{"type": "text", "text"}`.
    """
    layout = _FORMATS[name]
    content = (
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        f"{{% if c['type'] == 'image' %}}{_text(image_token + chr(10))}"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    )
    system = _around(layout.system, content)
    default = ""
    if layout.default_system:
        spoken = _text("".join((layout.system[0], layout.default_system, layout.system[1])))
        default = f"{{% if messages[0]['role'] != 'system' %}}{spoken}{{% endif %}}"
    return (
        f"{default}{{% for m in messages %}}"
        f"{{% if m['role'] == 'system' %}}{system}"
        f"{{% elif m['role'] == 'user' %}}{_around(layout.question, content)}"
        f"{{% else %}}{_text(layout.header)}{_around(layout.answer, content)}{{% endif %}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{_text(layout.header)}{{% endif %}}"
    )


def _around(pair: tuple[str, str], content: str) -> str:
    return _text(pair[0]) + content + _text(pair[1])


def _text(text: str) -> str:
    """As a Jinja string, so that no white space next to a tag is trimmed."""
    if not text:
        return ""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"{{{{ '{escaped}' }}}}"
