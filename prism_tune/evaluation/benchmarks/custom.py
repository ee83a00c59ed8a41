r"""A benchmark of your own: a file of questions, images and answers, and a named metric.

Source: yours; `evaluation.data.<name>` with `annotations` and `metric` makes it a benchmark.
Schema: JSON lines (or a list) of {question, answer}; image (a path, a list of them, a data URI;
    absent where there is none), choices (texts, for the metric `letter`), question_id (default: the
    record's number, from 1) and category (gives `accuracy_<category>`). An answer may be a list of
    right ones.
Prompt: the question, its choices as lines "A. text", and the instruction: LLaVA's own for the
    metric, or `evaluation.data.<name>.instruction` (empty: none); both profiles.
Decoding: greedy, 128 new tokens, or `evaluation.data.<name>.max_new_tokens`.
Metric: `accuracy` and by category, in percent, of
    exact: equal, but for case, spaces around and one period at the end;
    ten_answers: TextVQA's: ten answers, M4C-normalised, min(1, matches among the other 9 / 3);
    letter: the option that the answer names by MMBench's rule (`option_letter.py`); the reference
        is a letter or the text of a choice;
    yes_no: MME's rule: "yes", else "no", within the first four letters, spaces around dropped;
    contains: the words of the reference stand in the answer, both M4C-normalised (which drops
        articles: a reference must have other words);
    number: the last number in the answer is the reference, which holds one.
Missing answers: wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Metric, Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    read_objects,
    require_keys,
    to_id,
    to_letter,
    to_name,
    to_text,
    to_yes_no,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.mme import parse_answer_llava15
from prism_tune.evaluation.benchmarks.option_letter import find_letter
from prism_tune.evaluation.benchmarks.quickstart import parse_answer
from prism_tune.evaluation.benchmarks.vqa_text import credit_m4c_both, normalize_m4c
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import (
    find_foreign_prompts,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.schema import BenchmarkResult, Prediction, Question

MAX_NEW_TOKENS = 128
_SHORT = "Answer the question using a single word or phrase."
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUM_ANSWERS = 10
_NUMBER = re.compile(  # a hyphen behind a digit or a letter is a range's or a word's, no minus
    r"(?:(?<![\w.])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
)


@dataclass(frozen=True)
class Rule:
    """How one metric is asked and scored.

    Attributes:
        instruction: the prompt's last line; empty for none.
        credit: (answer, references, options by letter) -> its credit.
    """

    instruction: str
    credit: Callable[[str, Sequence[str], Mapping[str, str]], float]


def make_benchmark(
    name: str, metric: Metric, *, instruction: str | None = None, max_new_tokens: int | None = None
) -> Benchmark:
    """The benchmark of this name and metric.

    Args:
        name: in results and tables.
        metric: a key of `RULES`.
        instruction: the prompt's last line; None for the metric's.
        max_new_tokens: of an answer; None for 128.
    """
    asked = RULES[metric].instruction if instruction is None else instruction
    tokens = max_new_tokens or MAX_NEW_TOKENS
    return Benchmark(
        name=name,
        load_questions=partial(_load_questions, metric=metric, instruction=asked),
        read_predictions=read_predictions,
        score=partial(_score_answers, name=name, metric=metric),
        max_new_tokens={"llava15": tokens, "lmms_eval": tokens},
    )


def find_number(text: str) -> float | None:
    """The last number in a text, thousands' commas dropped; None where there is none."""
    found = _find_numbers(text)
    return found[-1] if found else None


def _find_numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


def _exact(answer: str, references: Sequence[str], _: Mapping[str, str]) -> float:
    return float(parse_answer(answer) in map(parse_answer, references))


def _ten_answers(answer: str, references: Sequence[str], _: Mapping[str, str]) -> float:
    return credit_m4c_both(answer, references)


def _letter(answer: str, references: Sequence[str], options: Mapping[str, str]) -> float:
    return float(find_letter(answer, options) in references)


def _yes_no(answer: str, references: Sequence[str], _: Mapping[str, str]) -> float:
    return float(parse_answer_llava15(answer.strip()) in references)


def _contains(answer: str, references: Sequence[str], _: Mapping[str, str]) -> float:
    text = f" {normalize_m4c(answer)} "
    return float(any(f" {normalize_m4c(r)} " in text for r in references))


def _number(answer: str, references: Sequence[str], _: Mapping[str, str]) -> float:
    found = find_number(answer)
    numbers = [n for n in map(find_number, references) if n is not None]
    return float(found is not None and any(isclose(found, n, abs_tol=1e-9) for n in numbers))


RULES: Mapping[Metric, Rule] = {
    "exact": Rule(_SHORT, _exact),
    "ten_answers": Rule(_SHORT, _ten_answers),
    "letter": Rule("Answer with the option's letter from the given choices directly.", _letter),
    "yes_no": Rule(_SHORT, _yes_no),
    "contains": Rule("", _contains),
    "number": Rule(_SHORT, _number),
}


def _load_questions(
    path: Path, profile: Profile, *, metric: Metric, instruction: str
) -> list[Question]:
    """The questions of the file. Raises UserError naming the record and what was expected."""
    questions: list[Question] = []
    places: dict[str, str] = {}
    for number, (where, record) in enumerate(read_objects(path), 1):
        question = _make_question(number, record, where, metric, instruction)
        key = id_key(question)
        if key in places:
            raise UserError(
                f"{where}: question_id {key!r}, as of {places[key]}; expected one of its own, by "
                "which its answer is found (a record without has its number)"
            )
        places[key] = where
        questions.append(question)
    return questions


def _score_answers(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    profile: Profile,
    *,
    name: str,
    metric: Metric,
) -> BenchmarkResult:
    joined = join_predictions(questions, predictions)
    credits = {}
    for question in questions:
        text, options = joined.text(id_key(question)), question.metadata["options"]
        right = 0.0 if text is None else RULES[metric].credit(text, question.reference, options)
        credits[id_key(question)] = right
    categories = {id_key(q): q.category for q in questions if q.category}
    grouped = group_credits(credits, categories)
    metrics = {
        "accuracy": percent(credits.values()),
        **{f"accuracy_{category}": percent(values) for category, values in grouped.items()},
    }
    foreign = find_foreign_prompts(questions, joined)
    note = name_keys(foreign, "{} answer(s) whose prompt does not contain their question")
    notes = [*joined.notes, note]
    return joined.make_result(
        *(name, profile, metrics, credits, notes),
        scale=100,
        protocol=f"your own, by the metric {metric}",
        metric=metric,
        groups={"accuracy": ""},
    )


def _make_question(
    number: int, record: Mapping[str, Any], where: str, metric: Metric, instruction: str
) -> Question:
    require_keys(record, ("question", "answer"), where)
    question = to_text(record["question"], f"{where}: question")
    options = _read_choices(record.get("choices"), metric, where)
    lines = [f"{letter}. {text}" for letter, text in options.items()]
    image = record.get("image")
    images = [] if image is None else image if isinstance(image, list) else [image]
    return Question(
        question_id=to_id(record.get("question_id", number), f"{where}: question_id"),
        text="\n".join([question, *lines, *([instruction] if instruction else [])]),
        images=tuple(to_text(name, f"{where}: image") for name in images),
        reference=_read_references(record["answer"], metric, options, f"{where}: answer"),
        category=to_name(record.get("category"), f"{where}: category").replace(" ", "_"),
        metadata={"question": question, "options": options},
    )


def _read_choices(choices: Any, metric: Metric, where: str) -> dict[str, str]:
    if (metric == "letter") != isinstance(choices, list) or choices == []:
        expected = "expected a list of texts" if metric == "letter" else "only for metric letter"
        raise UserError(f"{where}: choices: {expected}, found {choices!r}")
    listed = choices or []
    if len(listed) > len(_LETTERS):
        raise UserError(f"{where}: choices: {len(listed)}, expected at most {len(_LETTERS)}")
    return {x: to_text(t, f"{where}: choices") for x, t in zip(_LETTERS, listed, strict=False)}


def _read_references(
    answer: Any, metric: Metric, options: Mapping[str, str], where: str
) -> list[str]:
    listed = answer if isinstance(answer, list) else [answer]
    if metric == "ten_answers" and len(listed) != _NUM_ANSWERS:
        raise UserError(f"{where}: expected {_NUM_ANSWERS} answers, found {len(listed)}")
    if not listed:
        raise UserError(f"{where}: expected an answer, found none")
    if metric == "yes_no":
        return [to_yes_no(text, where) for text in listed]
    texts = [to_text(text, where) for text in listed]
    if metric == "letter":
        return [_find_option(text, options, where) for text in texts]
    if metric == "number" and any(len(_find_numbers(text)) != 1 for text in texts):
        raise UserError(f"{where}: expected a number, found {answer!r}")
    if metric == "contains" and not all(map(normalize_m4c, texts)):
        raise UserError(
            f"{where}: expected words that can be looked for (articles and punctuation are "
            f"dropped), found {answer!r}; the metric `exact` compares it as it is"
        )
    return texts


def _find_option(text: str, options: Mapping[str, str], where: str) -> str:
    """The letter of a choice that is given by its text or its letter."""
    letters = [letter for letter, choice in options.items() if choice == text]
    named = text.strip().upper()
    if letters and named in options and named not in letters:
        letters.append(named)
    if len(letters) > 1:
        raise UserError(
            f"{where}: {text!r} may be option {' or '.join(letters)}; make the choices differ, and "
            "none of them another's letter"
        )
    return letters[0] if letters else to_letter(text, options, where)
