"""Conversations as the model reads them, and which characters are answers.

In: turns and a template. Out: the text, and the character spans of the answers with their end
token. A span starts where `render_prompt` ends, so that training and generation agree.

The built-in templates write no beginning-of-sequence token: the tokenizer adds its own, once
(`adds_special_tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prism_tune.chat.builtin_templates import LAYOUTS, Layout
from prism_tune.chat.templates import (
    MISTYPED_END,
    apply_chat,
    find_end_token,
    find_written_end,
    image_token,
    takes_parts,
    wrap_image,
)
from prism_tune.config.sections import Template
from prism_tune.data.literal_text import hide_placeholders, mark_literals, show_placeholders
from prism_tune.errors import UserError
from prism_tune.schema import IMAGE_PLACEHOLDER, Turn

_STAND_IN = re.compile("\ufdd2[0-9]+\ufdd3")


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
    turns, system = mark_turns(turns, processor), mark_literals(system, processor)
    if template == "processor":
        return _render_chat(turns, processor, system)
    layout = LAYOUTS[template]
    pieces = [(_open(layout, "" if template == "plain" else system), False)]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        asked = _question(question.text, template)
        pieces.append((_ask(asked, layout), False))
        pieces.append((layout.answer_prefix + answer.text + layout.end_token, True))
        pieces.append((layout.after_answer, False))
    image = wrap_image(processor)
    joined = [(text.replace(IMAGE_PLACEHOLDER, image), answer) for text, answer in pieces]
    return _join(joined, [turn.has_loss for turn in turns[1::2]])


def render_prompt(
    text: str, has_image: bool, template: Template, processor: Any = None, num_images: int = 1
) -> str:
    """Render one question up to where the model begins to answer.

    Args:
        text: the question, without placeholder: an `<image>` in it is a word.
        has_image: put the placeholder(s) before it, each on its own line.
        template: as in `render`.
        processor: as in `render`.
        num_images: how many images, where there are any.
    """
    asked = f"{IMAGE_PLACEHOLDER}\n" * (num_images if has_image else 0)
    asked += mark_literals(hide_placeholders(text), processor)
    if template == "processor":
        prompt = _apply_chat([Turn("human", asked)], processor, "", is_prompt=True)
    else:
        layout = LAYOUTS[template]
        prompt = layout.opening + _ask(_question(asked, template), layout)
        prompt = prompt.replace(IMAGE_PLACEHOLDER, wrap_image(processor))
    return show_placeholders(prompt, processor)


def mark_turns(turns: Sequence[Turn], processor: Any) -> list[Turn]:
    """The turns with the names of control tokens in them marked as text (`literal_text`)."""
    return [replace(turn, text=mark_literals(turn.text, processor)) for turn in turns]


def adds_special_tokens(text: str, tokenizer: Any) -> bool:
    """Whether to tokenise with `add_special_tokens`: not where the text has its own beginning."""
    return not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))


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
    whole = rendered = _apply_chat(turns, processor, system, is_prompt=False)
    if system.strip() not in whole:
        raise _template_error(f"system line {system[:40]!r}")
    end_text = find_written_end(processor) or ""
    if not end_text and find_end_token(processor):
        return _render_by_turn(turns, processor, system)
    spans = []
    for number in range(1, len(turns), 2):
        before = _apply_chat(turns[:number], processor, system, is_prompt=True)
        after = rendered  # of all turns; a template takes a tenth of a millisecond
        if number + 1 < len(turns):
            after = _apply_chat(turns[: number + 1], processor, system, is_prompt=False)
        if not (whole.startswith(after) and after.startswith(before)):
            return _render_by_turn(turns, processor, system)
        if turns[number].text.strip() not in after[len(before) :]:
            raise _template_error(f"answer {turns[number].text[:40]!r}")
        end = len(after.rstrip())
        if after.rstrip().endswith(turns[number].text.strip()):  # nothing is written behind it
            whole += end_text if len(after) == len(whole) else ""
            end = len(after) + len(end_text)
        spans.append((len(before), end))
    for turn in turns[::2]:
        if any(piece.strip() not in whole for piece in turn.text.split(IMAGE_PLACEHOLDER)):
            raise _template_error(f"question {turn.text[:40]!r}")
    return Rendered(whole, tuple(spans), _choose(spans, [turn.has_loss for turn in turns[1::2]]))


def _render_by_turn(turns: Sequence[Turn], processor: Any, system: str) -> Rendered:
    """For templates that leave an earlier answer's thinking out, or write no end behind answers.

    Every answer stands behind the prompt that it would be generated from. The template is shown
    stand-ins; where they come out, the texts are put in.
    """
    shown, texts = _stand_in_texts(turns)
    pieces: list[tuple[str, bool]] = []
    written = ""
    for number in range(1, len(turns), 2):
        prompt = _apply_chat(shown[:number], processor, system, is_prompt=True)
        closed = _apply_chat(shown[: number + 1], processor, system, is_prompt=False)
        before, found, behind = closed.partition(shown[number].text)
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        if number > 1:
            _, earlier, prompt = prompt.partition(shown[number - 2].text + written)
            found = found and earlier
        if not found:
            raise _template_error(f"answer {turns[number].text[:40]!r}")
        written, end = _find_ends(behind, processor)
        pieces += [(prompt, False), (lead + shown[number].text + end, True)]
    pieces.append((behind[len(written) :], False))
    lost = [text for mark, text in texts.items() if sum(p.count(mark) for p, _ in pieces) != 1]
    if lost:
        raise _template_error(f"text {lost[0][:40]!r}")
    filled = [(_STAND_IN.sub(lambda m: texts[m[0]], piece), spoken) for piece, spoken in pieces]
    return _join(filled, [turn.has_loss for turn in turns[1::2]])


def _find_ends(behind: str, processor: Any) -> tuple[str, str]:
    """What the template writes behind an answer as its end, and what the model learns in its place.

    Where that is no control token, it is the tokenizer's end of a text, directly behind the answer.
    """
    end = find_end_token(processor)
    if end and not find_written_end(processor):
        return (MISTYPED_END if behind.startswith(MISTYPED_END) else "", end)
    written = behind.rstrip() or end or ""
    return written, written


def _stand_in_texts(turns: Sequence[Turn]) -> tuple[list[Turn], dict[str, str]]:
    """The turns with a mark for each text between their images, and the texts by mark."""
    texts: dict[str, str] = {}

    def stand_in(piece: str) -> str:
        if not piece.strip():
            return piece
        mark = f"\ufdd2{len(texts)}\ufdd3"
        texts[mark] = piece.removeprefix("\n")
        return piece[: len(piece) - len(texts[mark])] + mark

    def shown(turn: Turn) -> Turn:
        if turn.role == "gpt":
            mark = f"\ufdd2{len(texts)}\ufdd3"
            texts[mark] = turn.text
            return replace(turn, text=mark)
        pieces = turn.text.split(IMAGE_PLACEHOLDER)
        return replace(turn, text=IMAGE_PLACEHOLDER.join(map(stand_in, pieces)))

    return [shown(turn) for turn in turns], texts


def _template_error(turn: str) -> UserError:
    return UserError(
        "model.template: the processor's chat template rewrites earlier turns or drops text "
        f"({turn}); choose one of the built-in templates"
    )


def _apply_chat(turns: Sequence[Turn], processor: Any, system: str, *, is_prompt: bool) -> str:
    as_parts = takes_parts(processor)
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
    return apply_chat(messages, processor, is_prompt=is_prompt)


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
