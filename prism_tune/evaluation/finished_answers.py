"""What finished evaluations of a run were asked and answered: a row for every question.

In: a run folder. Out, by benchmark: rows with image, texts, answer and score. The answer is out of
`predictions.jsonl`, the score out of `results.json` (a judge's where one has graded), and image,
reference and category are out of the annotations that the evaluation recorded. Where those are gone
or have changed, the row has what the run folder holds, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from prism_tune.config.sections import BenchmarkData, Config
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import open_questions
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.image_references import find_folder, locate
from prism_tune.evaluation.predictions import id_key, read_predictions
from prism_tune.evaluation.score import find_benchmark
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.stage import Stage
from prism_tune.schema import Prediction, Question

Row = dict[str, Any]
_RIGHT_ABOVE = 0.5


@dataclass(frozen=True)
class Answered:
    """One benchmark in one run. `has_questions`: the annotations are there and unchanged."""

    rows: list[Row]
    profile: str = ""
    has_questions: bool = True
    notes: list[str] = field(default_factory=list)


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
    finished = sorted(path.parent.name for path in run.evaluation.glob("*/results.json"))
    unknown = [name for name in benchmarks if name not in finished]
    if unknown:
        listed = ", ".join(finished) or "none"
        raise UserError(f"{run.root}: no results of {unknown[0]}; finished there: {listed}")
    asked = {
        name: _read_benchmark(run.benchmark(name), name)
        for name in finished
        if name in benchmarks or not benchmarks
    }
    if not any(item.rows for item in asked.values()):
        found = f"results of {', '.join(asked)} alone" if asked else "no results"
        raise UserError(
            f"{run.evaluation}: no answers ({found}); first run `prism-tune evaluate CONFIG` with "
            "a multimodal benchmark: those of language benchmarks are lm-eval's, which keeps none"
        )
    return asked


def _read_benchmark(folder: Path, name: str) -> Answered:
    result = read_json(folder / "results.json")
    path = folder / "predictions.jsonl"
    if not path.exists():
        return Answered([], notes=[f"{name}: no answers ({path}: no such file), left out"])
    answers, stage = read_predictions(path), Stage(folder)
    config, recorded = stage.config(), (stage.record() or {}).get("inputs", {})
    credits: Mapping[str, float] = result.get("per_question", {})
    profile = result.get("profile", "")
    try:
        questions = _load_questions(config, name, recorded.get("data"), f"{stage.path}")
    except UserError as error:
        without = "no image, reference and category: the answers' own prompts stand as questions"
        rows = [_make_row(name, _question_of(answer), answer, credits) for answer in answers]
        return Answered(rows, profile, False, [f"{name}: {without} ({error})"])
    given = {(id_key(answer), answer.prompt): answer for answer in answers}
    rows = [_make_row(name, q, given.get((id_key(q), q.text)), credits) for q in questions]
    data = config.evaluation.data[name] if config else BenchmarkData(annotations="")
    files = locate({image for q in questions for image in q.images}, find_folder(data))
    for row, question in zip(rows, questions, strict=True):
        row["image"] = "\n".join(files[image] for image in question.images) or None
    return Answered(rows, profile)


def _load_questions(
    config: Config | None, name: str, checksum: str | None, where: str
) -> list[Question]:
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
    questions = open_questions(benchmark, Path(data.annotations), config.evaluation.profile)
    if checksum is not None and fingerprint(questions) != checksum:
        raise UserError(f"{data.annotations}: not what was asked; it, or this package, has changed")
    return questions[: data.limit]


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
    if name not in BENCHMARKS:
        return id_key(question)
    return BENCHMARKS[name].credit_key(question)
