"""What finished evaluations of a run were asked and answered: a row for every question.

In: a run folder. Out, by benchmark: rows with image, texts, answer and score. The answer is out of
`predictions.jsonl`, the score out of `results.json` (a judge's where one has graded), and image,
reference and category are out of the annotations that the evaluation recorded. Where those are gone
or have changed, the row has what the run folder holds, and a note says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from prism_tune.config.plugins import find_plugged
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import (
    Benchmark,
    fingerprint_questions,
    list_first,
    open_questions,
)
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.image_references import find_folders, locate
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.predictions import fold_text, id_key, read_predictions
from prism_tune.evaluation.score import KNOWN, find_benchmark
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.stage import Stage
from prism_tune.schema import Answered, Change, PlacedImage, Prediction, Question

Row = dict[str, Any]

ANSWER_COLUMNS = ("answer", "score", "right")
BEFORE_COLUMNS = tuple(f"{column}_before" for column in ANSWER_COLUMNS)
BROKEN: Change = "right before, wrong now"
MENDED: Change = "wrong before, right now"

_CHANGES: Mapping[tuple[bool, bool], Change] = {
    (True, False): BROKEN,
    (False, True): MENDED,
    (True, True): "right in both",
    (False, False): "wrong in both",
}
_RIGHT_ABOVE = 0.5


def list_finished(run: RunDir) -> list[str]:
    """The benchmarks whose evaluation has finished, language ones among them."""
    return sorted(path.parent.name for path in run.evaluation.glob("*/results.json"))


def read_run(run: RunDir, benchmarks: Sequence[str]) -> dict[str, Answered]:
    """Its benchmarks by name.

    Args:
        run: the folder.
        benchmarks: only these; all by default.

    Raises:
        UserError: no run folder, no answers in it, a benchmark it does not have, a broken file.
    """
    if not run.root.is_dir():
        raise UserError(f"{run.root}: no such run folder; `prism-tune evaluate CONFIG` makes one")
    finished = list_finished(run)
    unknown = [name for name in benchmarks if name not in finished]
    if unknown:
        listed = ", ".join(finished) or "none"
        raise UserError(f"{run.root}: no results of {unknown[0]}; finished there: {listed}")
    asked = {
        name: read_benchmark(run, name) for name in finished if name in benchmarks or not benchmarks
    }
    if not any(item.rows for item in asked.values()):
        found = f"results of {', '.join(asked)} alone" if asked else "no results"
        raise UserError(
            f"{run.evaluation}: no answers ({found}); first run `prism-tune evaluate CONFIG` with "
            "a multimodal benchmark: those of language benchmarks are lm-eval's, which keeps none"
        )
    return asked


def read_benchmark(run: RunDir, name: str) -> Answered:
    """One benchmark's rows; none, and a note, where its evaluation keeps no answers.

    Raises:
        UserError: a broken file.
    """
    folder = run.benchmark(name)
    result = read_object(folder / "results.json")
    path = folder / "predictions.jsonl"
    if not path.exists():
        why = "lm-eval asked it, which keeps none" if name in LANGUAGE_BENCHMARKS else f"no {path}"
        return Answered([], [], notes=[f"{name}: no answers ({why}), left out"])
    answers, stage = read_predictions(path), Stage(folder)
    config, recorded = stage.config(), (stage.record() or {}).get("inputs", {})
    credits: Mapping[str, float] = result.get("per_question", {})
    profile = result.get("profile", "")
    try:
        questions = _load_questions(config, name, recorded.get("data"), f"{stage.path}")
    except UserError as error:
        without = "no image, reference and category: the answers' own prompts stand as questions"
        rows = [_make_row(name, _question_of(answer), answer, credits) for answer in answers]
        images: list[tuple[PlacedImage, ...]] = [() for _ in rows]
        return Answered(rows, images, profile, False, [f"{name}: {without} ({error})"])
    given = {(id_key(answer), answer.prompt): answer for answer in answers}
    rows = [_make_row(name, q, given.get((id_key(q), q.text)), credits) for q in questions]
    assert config is not None  # where the questions are from
    found = locate({image for q in questions for image in q.images}, find_folders(config, name))
    images = [tuple(found[image] for image in question.images) for question in questions]
    for row, places in zip(rows, images, strict=True):
        files = [str(place.folder / place.name) if place.name else "" for place in places]
        row["image"] = "\n".join(files) or None
    return Answered(rows, images, profile)


def pair_rows(name: str, before: Answered, now: Answered) -> tuple[list[Row], list[str]]:
    """Rows of two runs, question by question, and what has to be said of them.

    Returns:
        The rows of `now` in their order, with `BEFORE_COLUMNS` and `change`, a `Change` or None;
        behind them the questions of `before` alone. And the notes.
    """
    text = "question" if before.has_questions and now.has_questions else "prompt"
    repeated = _list_repeated(before.rows) | _list_repeated(now.rows)
    firsts, seconds = (_by_question(run.rows, text, repeated) for run in (before, now))
    rows = []
    for key in dict.fromkeys([*seconds, *firsts]):
        row = {**firsts.get(key, {}), **dict.fromkeys(ANSWER_COLUMNS), **seconds.get(key, {})}
        row |= {f"{column}_before": firsts.get(key, {}).get(column) for column in ANSWER_COLUMNS}
        row["change"] = _CHANGES.get((row["right_before"], row["right"]))
        rows.append(row)
    notes = [*before.notes, *now.notes]
    if before.profile != now.profile:
        notes.append(f"{name}: asked under {before.profile} before and {now.profile} now")
    alone = [len(firsts.keys() - seconds.keys()), len(seconds.keys() - firsts.keys())]
    if any(alone):
        notes.append(
            f"{name}: {alone[0]} question(s) of the first run alone, {alone[1]} of the second"
        )
    return rows, notes


def _list_repeated(rows: Sequence[Row]) -> set[str]:
    return {
        name for name, count in Counter(row["question_id"] for row in rows).items() if count > 1
    }


def _by_question(
    rows: Sequence[Row], text: str, repeated: Collection[str]
) -> dict[tuple[str, str, int], Row]:
    """By id; where ids repeat (MME, TextVQA) by id and words; equal ones by their order.

    `repeated` are those of both runs: a limit may leave one of them a single question of an image.
    """
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for row in rows:
        words = fold_text(row[text]) if row["question_id"] in repeated else ""
        key = (row["question_id"], words)
        found[(*key, seen[key])] = row
        seen[key] += 1
    return found


def _load_questions(
    config: Config | None, name: str, checksum: str | None, where: str
) -> tuple[Question, ...]:
    """The questions as they were asked, up to `limit`.

    Raises:
        UserError: they are gone, cannot be read or have changed, or the run does not say.
    """
    data = config.evaluation.data.get(name) if config else None
    if config is None or data is None:
        raise UserError(f"{where}: does not say which annotations were asked")
    benchmark = find_benchmark(
        name, data.metric, instruction=data.instruction, max_new_tokens=data.max_new_tokens
    )
    annotations = Path(data.annotations)
    questions = open_questions(benchmark, annotations, config.evaluation.profile)
    if checksum is not None and fingerprint_questions(questions, annotations) != checksum:
        raise UserError(f"{data.annotations}: not what was asked; it, or this package, has changed")
    return list_first(questions, benchmark, data.limit)


def _question_of(answer: Prediction) -> Question:
    """What an answer alone tells of its question."""
    return Question(answer.question_id, answer.prompt, (), None)


def _make_row(
    name: str, question: Question, answer: Prediction | None, credits: Mapping[str, float]
) -> Row:
    reference = question.reference
    is_text = reference is None or isinstance(reference, str)
    score = credits.get(_credit_key(name, question))
    return {
        "benchmark": name,
        "question_id": str(question.question_id),
        "category": question.category or None,
        "image": None,
        "question": str(question.metadata.get("question", question.text)),
        "prompt": question.text,
        "reference": reference if is_text else orjson.dumps(reference).decode(),
        "answer": None if answer is None else answer.text,
        "score": None if score is None else float(score),
        "right": None if score is None else score > _RIGHT_ABOVE,
    }


def _credit_key(name: str, question: Question) -> str:
    plugged = find_plugged("BENCHMARKS", name, Benchmark, KNOWN)
    known = plugged or BENCHMARKS.get(name)
    return id_key(question) if known is None else known.credit_key(question)
