"""Conversations as the model reads them, and which characters are answers.

In: turns and a template. Out: the text, and the character spans of the answers with their end
token. A span starts where `render_prompt` ends, so that training and generation agree.

The built-in templates write no beginning-of-sequence token: the tokenizer adds its own, once
(`adds_special_tokens`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from prism_tune.chat_formats import LAYOUTS, Layout
from prism_tune.config.sections import Template
from prism_tune.errors import UserError
from prism_tune.schema import IMAGE_PLACEHOLDER, Turn


@dataclass(frozen=True)
class Rendered:
    """A conversation's text, and in it, as [start, end) characters, its answers.

    `loss_spans`: those of them that are learnt.
    """

    text: str
    answer_spans: tuple[tuple[int, int], ...]
    loss_spans: tuple[tuple[int, int], ...]


def render(
    turns: Sequence[Turn], template: Template, processor: Any = None, *, system: str = ""
) -> Rendered:
    """Render a whole conversation, questions and answers alternating.

    Args:
        turns: human, gpt, human, gpt, ...
        system: in place of the template's own system line, where it is not empty. `plain` has none.
        template: `plain`, for the alignment stage, keeps of a question only its placeholders.
        processor: where given, `<image>` becomes its own image token; needed by `processor`.

    Raises:
        UserError: the processor's chat template does not keep the turns as they are.
    """
    if template == "processor":
        return _render_chat(turns, processor, system)
    layout = LAYOUTS[template]
    pieces = [(_open(layout, "" if template == "plain" else system), False)]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        asked = _question(question.text, template)
        pieces.append((_ask(asked, layout), False))
        pieces.append((layout.answer_prefix + answer.text + layout.end_token, True))
        pieces.append((layout.after_answer, False))
    token = image_token(processor)
    joined = [(text.replace(IMAGE_PLACEHOLDER, token), answer) for text, answer in pieces]
    return _join(joined, [turn.has_loss for turn in turns[1::2]])


def render_prompt(
    text: str, has_image: bool, template: Template, processor: Any = None, num_images: int = 1
) -> str:
    """Render one question up to where the model begins to answer.

    Args:
        text: the question, without placeholder.
        has_image: put the placeholder(s) before it, each on its own line.
        template: as in `render`.
        processor: as in `render`.
        num_images: how many images, where there are any.
    """
    asked = f"{IMAGE_PLACEHOLDER}\n" * (num_images if has_image else 0) + text
    if template == "processor":
        return _apply_chat([Turn("human", asked)], processor, "", is_prompt=True)
    layout = LAYOUTS[template]
    question = _question(asked, template)
    prompt = layout.opening + _ask(question, layout)
    return prompt.replace(IMAGE_PLACEHOLDER, image_token(processor))


def end_token(template: Template) -> str | None:
    """What ends an answer; None for `processor`, whose tokenizer knows."""
    return None if template == "processor" else LAYOUTS[template].end_token


def check_end_token(template: Template, tokenizer: Any) -> None:
    """Refuse a template whose end token the tokenizer would cut into pieces.

    Raises:
        UserError: the model could never learn to stop.
    """
    end = end_token(template)
    if end is None or template == "plain":
        return
    if len(tokenizer.encode(end, add_special_tokens=False)) != 1:
        raise UserError(
            f"model.template: {template} ends answers with {end!r}, which is not one token of this "
            f"tokenizer (its end token is {tokenizer.eos_token!r}); choose the template the model "
            "was made for, or `processor` for its own"
        )


def adds_special_tokens(text: str, tokenizer: Any) -> bool:
    """Whether to tokenise with `add_special_tokens`: not where the text has its own beginning."""
    return not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))


def image_token(processor: Any) -> str:
    """The processor's placeholder for an image; `<image>` without processor."""
    return str(getattr(processor, "image_token", None) or IMAGE_PLACEHOLDER)


def _question(text: str, template: Template) -> str:
    if template == "plain":
        return IMAGE_PLACEHOLDER * text.count(IMAGE_PLACEHOLDER)
    return text


def _ask(question: str, layout: Layout) -> str:
    return layout.before_question + question + layout.after_question + layout.header


def _open(layout: Layout, system: str) -> str:
    """A conversation's beginning, with a system line of its own or the template's."""
    return system.join(layout.around_system) if system else layout.opening


def _join(pieces: Sequence[tuple[str, bool]], has_loss: Sequence[bool]) -> Rendered:
    spans = []
    position = 0
    for text, is_answer in pieces:
        if is_answer:
            spans.append((position, position + len(text)))
        position += len(text)
    return Rendered("".join(text for text, _ in pieces), tuple(spans), _choose(spans, has_loss))


def _choose(spans: Sequence[tuple[int, int]], has_loss: Sequence[bool]) -> tuple[Any, ...]:
    return tuple(span for span, learnt in zip(spans, has_loss, strict=True) if learnt)


def _render_chat(turns: Sequence[Turn], processor: Any, system: str) -> Rendered:
    """Find each answer between the template's prompt before it and its text after it."""
    whole = _apply_chat(turns, processor, system, is_prompt=False)
    if system.strip() not in whole:
        raise _template_error(f"system line {system[:40]!r}")
    spans = []
    for number in range(1, len(turns), 2):
        before = _apply_chat(turns[:number], processor, system, is_prompt=True)
        after = _apply_chat(turns[: number + 1], processor, system, is_prompt=False)
        kept = whole.startswith(after) and after.startswith(before)
        if not kept or turns[number].text.strip() not in after[len(before) :]:
            raise _template_error(f"answer {turns[number].text[:40]!r}")
        spans.append((len(before), len(after.rstrip())))
    for turn in turns[::2]:
        if any(piece.strip() not in whole for piece in turn.text.split(IMAGE_PLACEHOLDER)):
            raise _template_error(f"question {turn.text[:40]!r}")
    return Rendered(whole, tuple(spans), _choose(spans, [turn.has_loss for turn in turns[1::2]]))


def _template_error(turn: str) -> UserError:
    return UserError(
        "model.template: the processor's chat template rewrites earlier turns or drops text "
        f"({turn}); choose one of the built-in templates"
    )


def _apply_chat(turns: Sequence[Turn], processor: Any, system: str, *, is_prompt: bool) -> str:
    as_parts = bool(getattr(processor, "chat_template", None)) and hasattr(processor, "tokenizer")
    spoken = [{"type": "text", "text": system}] if as_parts else system
    messages: list[dict[str, Any]] = [{"role": "system", "content": spoken}] if system else []
    messages += [
        {
            "role": "user" if turn.role == "human" else "assistant",
            "content": split_content(turn.text)
            if as_parts
            else turn.text.replace(IMAGE_PLACEHOLDER, image_token(processor)),
        }
        for turn in turns
    ]
    try:
        text = processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=is_prompt
        )
    except TemplateError as error:
        raise UserError(
            f"model.template: the processor's chat template refuses a conversation: {error}; "
            "choose one of the built-in templates, or leave system lines out with data.system=drop"
        ) from error
    return str(text)


def split_content(text: str) -> list[dict[str, str]]:
    """Text as a message's parts: `<image>`, a line break, `what?` -> an image, then `what?`.

    The line break that LLaVA puts behind a placeholder is left to the template.
    """
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(text.split(IMAGE_PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
            piece = piece.removeprefix("\n")
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
