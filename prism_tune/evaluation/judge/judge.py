"""Grading MM-Vet answers with a judge.

In: an answer file, `mm-vet.json`, the judge's prompt and a judge. Out: a grade file in the official
format, written after every grade, so that a stopped grading goes on with the next; beside it
`<name>.judge.json`, what the grades were made with. `prism-tune score mmvet` reads the grade file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import open_questions
from prism_tune.evaluation.benchmarks import mmvet
from prism_tune.evaluation.benchmarks.grades import Grade, find_failed
from prism_tune.evaluation.judge.evaluated import score_judged
from prism_tune.evaluation.judge.prompt import JudgePrompt
from prism_tune.evaluation.judge.review_prompt import Review
from prism_tune.evaluation.predictions import id_key, name_keys
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import read_object, write_json
from prism_tune.schema import BenchmarkResult

logger = logging.getLogger(__name__)

_CHARACTERS_PER_TOKEN = 4


class Judge(Protocol):
    """Who grades."""

    def grade(self, prompt: str) -> Grade:
        """One graded answer."""

    def review(self, message: str) -> Review:
        """One answer compared with the reference."""


class Work(Protocol):
    """What a judge is asked, by question id, and what its judgements depend on."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """What it is sent."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """By the name shown when it changed; `table` is the checksum of the judge's prompt."""


@dataclass(frozen=True)
class Grading:
    """What there is to grade.

    Attributes:
        predictions: the answer file.
        annotations: mm-vet.json.
        prompts: what the judge is sent, by question id.
        num_runs: how often each answer is graded.
        path: the grade file.
        inputs: what the grades depend on, by the name shown when it changed.
    """

    predictions: Path
    annotations: Path
    prompts: Mapping[str, str]
    num_runs: int
    path: Path
    inputs: dict[str, Any]

    @property
    def inputs_path(self) -> Path:
        """What the stored grades were made with."""
        return self.path.with_suffix(".judge.json")

    def read_grades(self) -> dict[str, dict[str, list[Any]]]:
        """The grades there are, in the official format."""
        grades: dict[str, dict[str, list[Any]]] = (
            read_object(self.path) if self.path.exists() else {}
        )
        return grades

    def count_calls(self) -> int:
        """Grades that are still to be given; a refused answer asks for more calls."""
        grades = self.read_grades()
        return sum(len(self.list_due(grades, run)) for run in range(self.num_runs))

    def list_due(self, grades: Mapping[str, Mapping[str, list[Any]]], run: int) -> list[str]:
        """The answers without a grade of this run, or whose grade has no number."""
        entries = {key: grades.get(key) or _empty() for key in self.prompts}
        return [
            key
            for key, entry in entries.items()
            if len(entry["score"]) <= run or run in find_failed(entry)
        ]


def plan_grading(
    predictions: Path,
    annotations: Path,
    prompt: JudgePrompt,
    *,
    judge_name: str,
    num_runs: int,
    path: Path | None,
) -> Grading:
    """Join answers and questions, and look at what has been graded before.

    Args:
        predictions: an answer file of MM-Vet.
        annotations: mm-vet.json (or its folder, or the hub's parquet).
        prompt: the judge's.
        judge_name: the model as it was asked for.
        num_runs: how often each answer is graded; the paper has 5, LLaVA 3.
        path: the grade file; by default beside the answers, named after the judge.

    Raises:
        UserError: files that are not as expected, or a grade file made with something else.
    """
    questions = open_questions(mmvet.BENCHMARK, annotations, "llava15")
    if not all(question.text for question in questions):
        raise UserError(f"{annotations}: a grade file; give mm-vet.json, which has the questions")
    joined = mmvet.join_answers(questions, mmvet.BENCHMARK.read_predictions(predictions))
    for note in joined.notes:
        logger.info("%s", note)
    prompts = {
        id_key(question): prompt.render(
            question.metadata["question"], question.reference, joined.answers[id_key(question)].text
        )
        for question in questions
        if id_key(question) in joined.answers
    }
    grading = Grading(
        predictions=predictions,
        annotations=annotations,
        prompts=prompts,
        num_runs=num_runs,
        path=path or predictions.parent / f"mmvet_{make_slug(judge_name)}-grade.json",
        inputs={"judge": judge_name, "prompts": fingerprint(prompts), "table": prompt.checksum},
    )
    _check_grades(grading)
    return grading


def make_slug(judge_name: str) -> str:
    """A judge's name as part of a file's."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in judge_name)


def describe_cost(work: Work, num_calls: int, *, max_new_tokens: int, price: float | None) -> str:
    """How many calls and, by rule of thumb, tokens and money are still to be spent.

    Args:
        work: what the judge is asked.
        num_calls: how often, still.
        max_new_tokens: of one answer of the judge.
        price: of a million prompt tokens, in any currency; None when unknown.
    """
    mean_characters = sum(map(len, work.prompts.values())) / max(len(work.prompts), 1)
    num_tokens = round(num_calls * mean_characters / _CHARACTERS_PER_TOKEN)
    cost = "" if price is None else f", about {num_tokens / 1e6 * price:.2f} at {price:g} a million"
    return (
        f"{num_calls:,} calls to {work.inputs['judge']}, about {num_tokens:,} prompt tokens "
        f"(4 characters each) and at most {num_calls * max_new_tokens:,} new ones{cost}"
    )


def grade(grading: Grading, judge: Judge) -> BenchmarkResult:
    """Give the grades that are missing or have no number, run by run, then score.

    A `results.json` of `evaluate` beside the answers takes the judge's score.

    Raises:
        UserError: the judge refuses or cannot be reached; the grades so far are kept. None of a
            run has a number.
    """
    write_json(grading.inputs_path, grading.inputs)
    grades = grading.read_grades()
    for run in range(grading.num_runs):
        due = grading.list_due(grades, run)
        for number, key in enumerate(due, 1):
            given = judge.grade(grading.prompts[key])
            _put(grades.setdefault(key, _empty()), run, given)
            write_json(grading.path, grades)
            logger.info("run %d: %d of %d: %s: %s", run + 1, number, len(due), key, given.score)
    return score_judged("mmvet", grading.path, grading)


def _put(entry: dict[str, list[Any]], run: int, given: Grade) -> None:
    """As the grade of this run, in the place of a failed one if it has one."""
    values = {"model": given.model, "content": given.content, "score": given.score}
    for name, value in values.items():
        entry[name][run : run + 1] = [value]


def _empty() -> dict[str, list[Any]]:
    return {"model": [], "content": [], "score": []}


def check_inputs(path: Path, inputs_path: Path, inputs: Mapping[str, Any]) -> None:
    """Refuse to go on with judgements of other answers, of another prompt or by another judge.

    Raises:
        UserError: naming what changed.
    """
    if not path.exists():
        return
    before = read_object(inputs_path) if inputs_path.exists() else {}
    changed = [key for key, value in inputs.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"{path}: has grades made with other inputs ({', '.join(changed)}); remove it, "
            "or give --output another name"
        )


def _check_grades(grading: Grading) -> None:
    check_inputs(grading.path, grading.inputs_path, grading.inputs)
    beyond = [key for key, e in grading.read_grades().items() if len(e["score"]) > grading.num_runs]
    if beyond:
        raise UserError(
            f"{grading.path}: {name_keys(beyond, '{} answer(s) graded more often')}; give a higher "
            "--runs"
        )
