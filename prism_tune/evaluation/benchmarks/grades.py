"""MM-Vet grades: a judge's file in the official format in, scores over runs out.

Format: {id: {model: [name per run], content: [text per run], score: [number per run]}}, as the
official grader writes and resumes it. Where a judge gave no number after all tries, the format has
0.0 beside words without one: such a grade has failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
from typing import Any

from prism_tune.config.sections import Readout
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import require_keys, to_list, to_text
from prism_tune.evaluation.metrics import mean

FAILED = (
    "{} answer(s) whose grade has no number, 0 in the mean (the same `prism-tune judge` asks again)"
)


@dataclass(frozen=True)
class Grade:
    """One judgement: the score in [0, 1], the judge's words, and who the judge says it is."""

    score: float
    content: str
    model: str


@dataclass(frozen=True)
class Grades:
    """Scores in [0, 1] per question and run, and who gave them.

    `failed`: by question, the runs whose grade has no number, which count 0.
    """

    scores: Mapping[str, tuple[float, ...]]
    judges: tuple[str, ...]
    failed: Mapping[str, tuple[int, ...]]

    @property
    def num_runs(self) -> int:
        """Runs of the judge, the same for every question."""
        return len(next(iter(self.scores.values())))

    def total_per_run(self, ids: Sequence[str]) -> list[float]:
        """Mean score x 100 of each run over these questions; an ungraded one counts 0."""
        absent = (0.0,) * self.num_runs
        return [
            sum(self.scores.get(key, absent)[run] for key in ids) / len(ids) * 100
            for run in range(self.num_runs)
        ]

    def total(self, ids: Sequence[str]) -> float:
        """Mean over the runs of `total_per_run`."""
        return mean(self.total_per_run(ids))

    def deviation(self, ids: Sequence[str]) -> float:
        """Standard deviation over the runs (population, as the official grader)."""
        return pstdev(self.total_per_run(ids))


def parse_score(content: str) -> float | None:
    """A judge's first word as a number from 0 to 1; None where it is none."""
    try:
        score = float(content.split(" ")[0].strip())
    except ValueError:
        return None
    return score if math.isfinite(score) and 0 <= score <= 1 else None


def find_failed(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """The runs of a question whose grade is 0 for want of a number; without words none is known."""
    contents = entry.get("content")
    listed = contents if isinstance(contents, list) else []
    return tuple(
        run
        for run, (score, content) in enumerate(zip(entry["score"], listed, strict=False))
        if score == 0 and isinstance(content, str) and parse_score(content) is None
    )


def require_one_judge(judges: Sequence[str], what: str) -> None:
    """Judges differ by points on the same answers: their mean is nobody's score.

    Raises:
        UserError: naming them.
    """
    if len(judges) > 1:
        raise UserError(
            f"{what}: of {len(judges)} judges: {', '.join(judges)}; one score is of one judge: "
            "score the files of each by themselves"
        )


def judge_grades(entries: Mapping[str, Any]) -> Grades:
    """Grades that a score can be made of.

    Raises:
        UserError: as `parse_grades`; of several judges; all of a run have failed, as those of a
            model that thinks first.
    """
    grades = parse_grades(entries, Path("grades"))
    require_one_judge(grades.judges, "mmvet: grades")
    for run in range(grades.num_runs):
        if all(run in grades.failed.get(key, ()) for key in grades.scores):
            raise UserError(
                f"run {run + 1} of judge {', '.join(grades.judges) or 'unnamed'}: not one of its "
                f"{len(grades.scores)} grades has a number from 0 to 1, so there is no score; "
                "choose a judge that answers with the number at once"
            )
    return grades


def name_local_judge(path: str, readout: Readout) -> str:
    """What a local judge is called in grade files and results."""
    return f"{path} (local, {readout})"


def is_grades(content: Any) -> bool:
    """Whether this is a grade file: every entry an object with a list of scores."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(entry, Mapping) and "score" in entry for entry in content.values())
    )


def parse_grades(content: Mapping[str, Any], file: Path) -> Grades:
    """Check and read a grade file.

    Raises:
        UserError: a score outside [0, 1], or questions with different numbers of runs.
    """
    scores: dict[str, tuple[float, ...]] = {}
    judges: dict[str, None] = {}
    failed: dict[str, tuple[int, ...]] = {}
    for key, entry in content.items():
        require_keys(entry, ("score",), f"{file}, {key}")
        scores[key] = _check_scores(entry["score"], f"{file}, {key}")
        if runs := find_failed(entry):
            failed[key] = runs
        for name in to_list(entry.get("model", []), f"{file}, {key}: model"):
            judges[to_text(name, f"{file}, {key}: model")] = None
    num_runs = {len(listed) for listed in scores.values()}
    if len(num_runs) != 1:
        short = min(scores, key=lambda key: len(scores[key]))
        raise UserError(
            f"{file}: {short} has {len(scores[short])} of {max(num_runs)} runs; an unfinished "
            "grading: resume it with the official grader or the judge here"
        )
    return Grades(scores, tuple(judges), failed)


def _check_scores(scores: Any, where: str) -> tuple[float, ...]:
    if not isinstance(scores, list) or not scores:
        raise UserError(f"{where}: score: expected one number per run, found {scores!r}")
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise UserError(f"{where}: score: expected numbers from 0 to 1, found {score!r}")
    return tuple(map(float, scores))
