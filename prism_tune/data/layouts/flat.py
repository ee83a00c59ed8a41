"""A question and an answer in columns of their own, as turns.

With them go choices, earlier pairs (`history`) and Alpaca's `input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prism_tune.data.layouts.choices import add_lines, write_choices
from prism_tune.data.layouts.columns import Column, Columns
from prism_tune.data.layouts.further import is_number
from prism_tune.data.layouts.image_values import shorten
from prism_tune.data.policy import BadRecordError


def read_flat(raw: Mapping[str, Any], columns: Columns) -> list[dict[str, Any]]:
    """Question and answer as turns, behind those of `history`."""
    question, answer = columns.find("question", raw), _find_answer(raw, columns)
    if question is None or answer is None:
        missing = columns.name("question" if question is None else "answer")
        raise BadRecordError("no_conversations", f"{missing}: expected text, got None")
    if _has_input(raw, columns) and (added := _read_input(raw, columns)):
        question = add_lines(question, [added])
    choices = columns.find_filled("choices", raw)
    if choices is not None:
        question, answer = write_choices(question, answer, choices, columns)
    answer = str(answer) if is_number(answer) else answer
    history = columns.find_filled("history", raw)
    pairs = [*_read_history(history, columns), (question, answer)]
    return [
        columns.build_turn(role, text)
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def list_flat(raw: Mapping[str, Any], columns: Columns) -> list[Column]:
    """The columns that are read of such a record."""
    further: list[Column] = ["input"] if _has_input(raw, columns) else []
    return ["question", "answer", "choices", "history", *further]


def _has_input(raw: Mapping[str, Any], columns: Columns) -> bool:
    """Alpaca's `input` goes with `instruction`; elsewhere the key may mean anything."""
    return "input" in columns.configured or columns.key("question", raw) == "instruction"


def _read_input(raw: Mapping[str, Any], columns: Columns) -> str:
    added = columns.find_filled("input", raw)
    if added is None:
        return ""
    if not isinstance(added, str) and not is_number(added):
        wrong = f"{columns.name('input')}: expected text, got {shorten(added)}"
        raise BadRecordError("bad_field", wrong)
    return str(added)


def _find_answer(raw: Mapping[str, Any], columns: Columns) -> Any:
    """An answer in a column of its own may be a number, or the only one of a list."""
    answer = columns.find("answer", raw)
    if isinstance(answer, list):
        if len(answer) != 1:
            expected = f"{columns.name('answer')}: expected one answer"
            raise BadRecordError("bad_field", f"{expected}, got {len(answer)}: {shorten(answer)}")
        answer = answer[0]
    return answer


def _read_history(history: Any, columns: Columns) -> list[tuple[Any, Any]]:
    if history is None:
        return []
    if not isinstance(history, list) or not all(
        isinstance(p, list) and len(p) == 2 for p in history
    ):
        expected = f"{columns.name('history')}: expected a list of [question, answer]"
        raise BadRecordError("bad_field", f"{expected}, got {shorten(history)}")
    return [(question, answer) for question, answer in history]
