"""What the page holds of a benchmark's questions, column by column, and which have pictures there.

Rows of finished evaluations go in. Texts are whole: the page searches them. A prompt is its
question between two texts that most questions share, so it is kept as the number of that pair.

Shape legend: N questions of a benchmark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from prism_tune.report.answer_source import Row
from prism_tune.schema import Answered, Change

PAGE_QUESTIONS = 12
VERDICTS = ("right", "partly right", "wrong", "no answer", "not scored")
CHANGES: tuple[Change, ...] = get_args(Change)

_MOST_CATEGORIES = 8
Codes = NDArray[np.int8]


def describe_questions(asked: Answered) -> dict[str, Any]:
    """The columns that do not depend on the answers."""
    rows = asked.rows
    wrappings, wrapping_N = _number(_split_prompt(row) for row in rows)
    categories, category_N = _number(row["category"] for row in rows)
    return {
        "ids": [row["question_id"] for row in rows],
        "questions": [row["question"] for row in rows],
        "wrappings": wrappings,
        "wrapping": wrapping_N,
        "categories": categories,
        "category": category_N,
        "references": [describe_reference(row["reference"]) for row in rows],
        "images": [
            ["" if place.is_embedded else place.name for place in places] for places in asked.images
        ],
    }


def describe_answers(rows: Sequence[Row], suffix: str = "") -> dict[str, Any]:
    """Answers and scores; `suffix`: of the columns, "_before" for the other run's."""
    return {
        "answers": [row[f"answer{suffix}"] for row in rows],
        "scores": [row[f"score{suffix}"] for row in rows],
        "verdicts": judge(rows, suffix).tolist(),
    }


def judge(rows: Sequence[Row], suffix: str = "") -> Codes:
    """The place in `VERDICTS` of each row, (N,)."""
    return np.array(
        [_judge(row[f"answer{suffix}"], row[f"score{suffix}"]) for row in rows], np.int8
    )


def find_changes(paired: Sequence[Row]) -> Codes:
    """The place in `CHANGES` of each row, (N,); -1 where one run has no score."""
    places = {change: place for place, change in enumerate(CHANGES)}
    return np.array([places.get(row["change"], -1) for row in paired], np.int8)


def choose_pictured(asked: Answered, verdict_N: Codes, changes: Iterable[Codes]) -> list[int]:
    """The rows that have pictures at once: the first page of each verdict, change and category."""
    categories = Counter(row["category"] for row in asked.rows)
    _, category_N = _number(row["category"] for row in asked.rows)
    codes = [*((verdict_N, code) for code in range(len(VERDICTS)))]
    codes += [(change_N, code) for change_N in changes for code in range(len(CHANGES))]
    codes += [
        (np.array(category_N), code) for code in range(min(len(categories), _MOST_CATEGORIES))
    ]
    chosen = dict.fromkeys(range(min(PAGE_QUESTIONS, len(asked.rows))))
    for code_N, code in codes:
        chosen.update(dict.fromkeys(np.flatnonzero(code_N == code)[:PAGE_QUESTIONS].tolist()))
    return list(chosen)


def describe_reference(reference: str | None) -> str | None:
    """References of several people as words and how many said them; others as they are."""
    if reference is None or not reference.startswith("["):
        return reference
    try:
        listed = orjson.loads(reference)
    except orjson.JSONDecodeError:
        return reference
    words = [item[0] if isinstance(item, list) and item else item for item in listed]
    if not words or not all(isinstance(word, str) for word in words):
        return reference
    counts = Counter(words)
    return ", ".join(
        f"{word} ({n})" if len(words) > 1 else word for word, n in counts.most_common()
    )


def _judge(answer: str | None, score: float | None) -> int:
    if answer is None:
        return VERDICTS.index("no answer")
    if score is None:
        return VERDICTS.index("not scored")
    return 0 if score >= 1 else 1 if score > 0 else 2


def _split_prompt(row: Row) -> tuple[str, ...]:
    """What stands before and behind the question in its prompt; the prompt where it is not."""
    prompt, question = row["prompt"], row["question"]
    if not question or question not in prompt:
        return (prompt,)
    before, _, behind = prompt.partition(question)
    return before, behind


def _number(values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """The different values in the order of their first appearance, and each one's place."""
    places: dict[Any, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return list(places), codes
