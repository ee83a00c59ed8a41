"""A question and an answer in columns of their own, as turns.

With them go choices, earlier pairs (`history`) and Alpaca's `input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prism_tune.data.layouts.columns import Columns
from prism_tune.data.layouts.further import is_number
from prism_tune.data.layouts.image_values import shorten
from prism_tune.data.policy import BadRecordError


def read_flat(raw: Mapping[str, Any], columns: Columns) -> list[dict[str, Any]]:
    """Question and answer as turns, behind those of `history`."""
    question, answer = columns.find("question", raw), _name_answer(raw, columns)
    if question is None or answer is None:
        missing = columns.name("question" if question is None else "answer")
        raise BadRecordError("no_conversations", f"{missing}: expected text, got None")
    added = columns.find("input", raw) if _has_input(raw, columns) else None
    if isinstance(question, str) and isinstance(added, str) and added:
        question = f"{question}\n{added}"
    choices = columns.find_filled("choices", raw)
    if choices is not None:
        question, answer = _write_choices(question, answer, choices, columns)
    history = columns.find_filled("history", raw)
    pairs = [*_read_history(history, columns), (question, answer)]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _has_input(raw: Mapping[str, Any], columns: Columns) -> bool:
    """Alpaca's `input` goes with `instruction`; elsewhere the key may mean anything."""
    return "input" in columns.configured or columns.key("question", raw) == "instruction"


def _name_answer(raw: Mapping[str, Any], columns: Columns) -> Any:
    """An answer in a column of its own may be a number, or the only one of a list."""
    answer = columns.find("answer", raw)
    if isinstance(answer, list):
        if len(answer) != 1:
            expected = f"{columns.name('answer')}: expected one answer"
            raise BadRecordError("bad_field", f"{expected}, got {len(answer)}: {shorten(answer)}")
        answer = answer[0]
    return str(answer) if is_number(answer) else answer


def _read_history(history: Any, columns: Columns) -> list[tuple[Any, Any]]:
    if history is None:
        return []
    if not isinstance(history, list) or not all(
        isinstance(p, list) and len(p) == 2 for p in history
    ):
        expected = f"{columns.name('history')}: expected a list of [question, answer]"
        raise BadRecordError("bad_field", f"{expected}, got {shorten(history)}")
    return [(question, answer) for question, answer in history]


def _write_choices(question: Any, answer: Any, choices: Any, columns: Columns) -> tuple[Any, Any]:
    """Choices as lettered lines below the question; the number of a choice becomes its letter."""
    if isinstance(choices, dict):  # of labels and texts, or of letter -> text
        choices = choices.get("text") or list(choices.values())
    texts = choices if isinstance(choices, list) else []
    texts = [str(choice) if is_number(choice) else choice for choice in texts]
    if not texts or not all(isinstance(choice, str) for choice in texts) or len(texts) > 26:
        expected = f"{columns.name('choices')}: expected a list of up to 26 texts"
        raise BadRecordError("bad_field", f"{expected}, got {shorten(choices)}")
    letters = [chr(ord("A") + number) for number in range(len(texts))]
    # Other digits than 0 to 9 ("②", "²") are what the choices are called, not their numbers.
    is_index = isinstance(answer, str) and answer.isascii() and answer.isdigit()
    if is_index and answer not in texts:
        numbered = {str(number): letter for number, letter in enumerate(letters)}
        letter = numbered.get(answer.lstrip("0") or "0")
        if letter is None:
            wrong = f"{columns.name('answer')}: number {answer:.20} of {len(texts)} choices"
            raise BadRecordError("bad_field", f"{wrong}; they are counted from 0")
        answer = letter
    if not isinstance(question, str):
        return question, answer
    lines = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    return "\n".join([question, *lines]), answer
