"""Choices as lettered lines below their question, and which letter its answer means.

Labels or keys that the record gives its choices say what an answer stands for; without any, a
number is a choice's place, from 0, and a letter its letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from prism_tune.data.layouts.columns import Columns, is_null
from prism_tune.data.layouts.further import is_number
from prism_tune.data.layouts.image_values import shorten
from prism_tune.data.policy import BadRecordError

_MOST = 26
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = re.compile(r"-?[0-9]+")
"""Other digits than 0 to 9 ("②", "²") are what the choices are called, not their places."""


_WRITTEN = re.compile(r"\(?([A-Za-z]|[0-9]{1,2})[.):]\s")
"""A label at the beginning of a text."""


class _Choices(NamedTuple):
    """`labels`: what the record calls them; empty where it does not."""

    texts: list[str]
    labels: list[str]
    are_numbers: bool


def write_choices(question: Any, answer: Any, choices: Any, columns: Columns) -> tuple[Any, Any]:
    """The question with its choices as lettered lines, and the answer, a label as its letter.

    Args:
        question: text, a number, or parts of texts and images.
        answer: a label, a place, a letter, or a text, as it stands in the record.
        choices: a list of texts, an object of labels and texts, or of `label` and `text` lists.
        columns: which keys hold them, for messages.

    Raises:
        BadRecordError: choices that are none, or an answer that is none of them.
    """
    choices = _drop_nulls(choices)
    if choices == {}:
        return question, answer
    read = _read_choices(choices, columns)
    answer = _find_letter(answer, read, columns)
    lines = [f"{letter}. {text}" for letter, text in zip(_LETTERS, read.texts, strict=False)]
    return add_lines(question, lines), answer


def add_lines(question: Any, lines: Sequence[str]) -> Any:
    """The question with further lines; what is no text is refused where turns are read."""
    if is_number(question):
        question = str(question)
    if isinstance(question, str):
        return "\n".join([question, *lines])
    if isinstance(question, dict):
        question = [question]
    if not isinstance(question, list):
        return question
    last = question[-1] if question else ""
    has_text = isinstance(last, str) or (isinstance(last, dict) and last.get("text"))
    text = "\n".join([*([""] if has_text else []), *lines])  # an image ends its line itself
    return [*question, {"type": "text", "text": text}]


def _drop_nulls(choices: Any) -> Any:
    """A table gives each record all labels that any has; those of nothing are not there."""
    if not isinstance(choices, dict):
        return choices
    return {label: text for label, text in choices.items() if not is_null(text) and text != []}


def _read_choices(choices: Any, columns: Columns) -> _Choices:
    where, labels = columns.name("choices"), None
    if isinstance(choices, dict):
        is_columns = isinstance(choices.get("text"), list)
        labels = choices.get("label") if is_columns else list(choices)
        choices = choices["text"] if is_columns else list(choices.values())
    given = choices if isinstance(choices, list) else []
    texts = [str(choice) if is_number(choice) else choice for choice in given]
    if not texts or not all(isinstance(text, str) for text in texts) or len(texts) > _MOST:
        expected = f"{where}: expected a list of up to {_MOST} texts"
        raise BadRecordError("bad_field", f"{expected}, got {shorten(choices)}")
    are_numbers = any(map(is_number, given))
    if labels is None:
        return _Choices(texts, [], are_numbers)
    return _Choices(texts, _read_labels(labels, len(texts), where), are_numbers)


def _read_labels(labels: Any, num_texts: int, where: str) -> list[str]:
    if not isinstance(labels, list) or len(labels) != num_texts:
        got = f"{len(labels)} and {num_texts}" if isinstance(labels, list) else shorten(labels)
        raise BadRecordError("bad_field", f"{where}: expected a label for each text, got {got}")
    named = [_as_label(label) for label in labels]
    if not all(isinstance(label, str) and label for label in named):
        wrong = f"{where}: expected labels of text, got {shorten(labels)}"
        raise BadRecordError("bad_field", wrong)
    if len(set(named)) < len(named):
        wrong = f"{where}: expected labels that differ, got {shorten(labels)}"
        raise BadRecordError("bad_field", wrong)
    return named


def _as_label(value: Any) -> Any:
    """A number as text, the same whether a table keeps it as 1 or as 1.0."""
    if is_number(value):
        return str(int(value)) if value == value // 1 else str(value)
    return value.strip() if isinstance(value, str) else value


def _find_letter(answer: Any, choices: _Choices, columns: Columns) -> Any:
    """The letter of the choice that the answer means; a text stays one."""
    named = _as_label(answer)
    if not isinstance(named, str) or not named:
        return answer  # refused where turns are read
    where = columns.name("answer")
    if choices.labels:
        return _find_labelled(answer, named, choices, where)
    written = [found for text in choices.texts if (found := _WRITTEN.match(text))]
    labels = [found[1] for found in written]
    if len(set(labels)) == len(choices.texts):
        if named in labels:
            return _LETTERS[labels.index(named)]
        if named in (found.string[found.end() :].strip() for found in written):
            return str(answer)
        if _NUMBER.fullmatch(named) and any(map(_NUMBER.fullmatch, labels)):
            raise _unlabelled(answer, labels, where)
    if is_number(answer) or named not in choices.texts:
        return _find_place(answer, named, choices, where)
    return answer


def _find_labelled(answer: Any, named: str, choices: _Choices, where: str) -> str:
    labels = choices.labels
    if named in labels:
        return _LETTERS[labels.index(named)]
    if named in choices.texts:
        return str(answer)
    # Places and texts of one's own are clear where they cannot mean another label.
    if _NUMBER.fullmatch(named) and not any(map(_NUMBER.fullmatch, labels)):
        return _find_place(answer, named, choices, where)
    are_letters = "".join(labels) == _LETTERS[: len(labels)]
    if are_letters and not is_number(answer) and not _is_letter_beyond(named, len(labels)):
        return str(answer)
    raise _unlabelled(answer, labels, where)


def _unlabelled(answer: Any, labels: Sequence[str], where: str) -> BadRecordError:
    listed = ", ".join(map(repr, labels))
    wrong = f"{where}: {shorten(answer)} is none of the labels {listed} of its choices"
    return BadRecordError("bad_field", f"{wrong}, nor one of their texts")


def _find_place(answer: Any, named: str, choices: _Choices, where: str) -> str:
    num_choices = len(choices.texts)
    is_place = _NUMBER.fullmatch(named) is not None
    digits = named.lstrip("0") or "0"
    place = int(digits) if is_place and len(digits) <= len(str(_MOST)) else -1
    letter = _LETTERS[place] if 0 <= place < num_choices else None
    if is_number(answer) and named in choices.texts:
        if letter is None:
            return str(answer)
        if choices.are_numbers and choices.texts.index(named) != place:
            wrong = f"{where}: {named} is the text of one choice and the place of another"
            raise BadRecordError("bad_field", f"{wrong}; write its letter")
    if letter is not None:
        return letter
    if is_place or is_number(answer):
        wrong = f"{where}: number {named:.20} of {num_choices} choices"
        raise BadRecordError("bad_field", f"{wrong}; they are counted from 0")
    if _is_letter_beyond(named, num_choices):
        wrong = (
            f"{where}: {shorten(answer)} is none of the letters A to {_LETTERS[num_choices - 1]}"
        )
        raise BadRecordError("bad_field", f"{wrong} of its choices")
    return str(answer)


def _is_letter_beyond(text: str, num_choices: int) -> bool:
    """Whether it is one letter, and that of no choice."""
    return len(text) == 1 and text.upper() in _LETTERS[num_choices:]
