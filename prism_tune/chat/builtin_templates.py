"""How the built-in templates (`model.template`) write a conversation: the one table of them.

A name goes in; what stands around questions and answers comes out, and a Jinja template that writes
the same for the processor of an assembled model, whose language model's own cannot show images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ChatFormat = Literal["vicuna_v1", "phi", "chatml", "llama3"]
"""Those that a chat can be written in; `plain`, for the alignment stage, has captions only."""

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
"""LLaVA-1.5's system line (vicuna_v1)."""


@dataclass(frozen=True)
class Layout:
    """What stands around a system line, questions and answers.

    A prompt ends with `header`; the model writes `answer_prefix`, the answer and `end_token`.
    """

    around_system: tuple[str, str]
    before_question: str
    after_question: str
    header: str
    answer_prefix: str
    end_token: str
    after_answer: str
    default_system: str = ""

    @property
    def opening(self) -> str:
        """What a conversation without system line of its own begins with."""
        before, after = self.around_system
        return f"{before}{self.default_system}{after}" if self.default_system else ""


def _chat_v1(end_token: str) -> Layout:
    # The prompt of the official evaluation ends with a bare "ASSISTANT:", so the space is the
    # model's to write. Between turns nothing follows the end token.
    return Layout(("", " "), "USER: ", "", " ASSISTANT:", " ", end_token, "", default_system=SYSTEM)


def _chatml_start(role: str) -> str:
    return f"<|im_start|>{role}\n"


def _llama3_header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


LAYOUTS: Mapping[str, Layout] = {
    "vicuna_v1": _chat_v1("</s>"),
    "phi": _chat_v1("<|endoftext|>"),
    "chatml": Layout(
        around_system=(_chatml_start("system"), "<|im_end|>\n"),
        before_question=_chatml_start("user"),
        after_question="<|im_end|>\n",
        header=_chatml_start("assistant"),
        answer_prefix="",
        end_token="<|im_end|>",
        after_answer="\n",
    ),
    "llama3": Layout(
        around_system=(_llama3_header("system"), "<|eot_id|>"),
        before_question=_llama3_header("user"),
        after_question="<|eot_id|>",
        header=_llama3_header("assistant"),
        answer_prefix="",
        end_token="<|eot_id|>",
        after_answer="",
    ),
    "plain": Layout(("", ""), "", "", "", "", "\n", ""),
}


def chat_template(name: ChatFormat, image_token: str) -> str:
    """The Jinja template; an image is the image token (`bare_image`) on a line of its own.

    Message contents may be text or a list of `{"type": "image"}` and `{"type": "text", "text"}`.
    """
    layout = LAYOUTS[name]
    content = (
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        f"{{% if c['type'] == 'image' %}}{_text(image_token + chr(10))}"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    )
    default = ""
    if layout.opening:
        spoken = _text(layout.opening)
        default = f"{{% if messages[0]['role'] != 'system' %}}{spoken}{{% endif %}}"
    system = _around(layout.around_system, content)
    question = _around((layout.before_question, layout.after_question), content)
    answer = _around((layout.answer_prefix, layout.end_token + layout.after_answer), content)
    return (
        f"{default}{{% for m in messages %}}"
        f"{{% if m['role'] == 'system' %}}{system}"
        f"{{% elif m['role'] == 'user' %}}{question}"
        f"{{% else %}}{_text(layout.header)}{answer}{{% endif %}}"
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
