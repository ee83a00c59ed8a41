"""MM-Vet grades: a judge's file in the official format in, scores over runs out.

Format: {id: {model: [name per run], content: [text per run], score: [number per run]}}, as the
official grader writes and resumes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
from typing import Any

from prism_tune.config.sections import Readout
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import require_keys, to_list, to_text
from prism_tune.evaluation.metrics import mean


@dataclass(frozen=True)
class Grade:
    """One judgement: the score in [0, 1], the judge's words, and who the judge says it is."""

    score: float
    content: str
    model: str


@dataclass(frozen=True)
class Grades:
    """Scores in [0, 1] per question and run, and who gave them."""

    scores: Mapping[str, tuple[float, ...]]
    judges: tuple[str, ...]

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
    for key, entry in content.items():
        require_keys(entry, ("score",), f"{file}, {key}")
        scores[key] = _check_scores(entry["score"], f"{file}, {key}")
        for name in to_list(entry.get("model", []), f"{file}, {key}: model"):
            judges[to_text(name, f"{file}, {key}: model")] = None
    num_runs = {len(listed) for listed in scores.values()}
    if len(num_runs) != 1:
        short = min(scores, key=lambda key: len(scores[key]))
        raise UserError(
            f"{file}: {short} has {len(scores[short])} of {max(num_runs)} runs; an unfinished "
            "grading: resume it with the official grader or the judge here"
        )
    return Grades(scores, tuple(judges))


def _check_scores(scores: Any, where: str) -> tuple[float, ...]:
    if not isinstance(scores, list) or not scores:
        raise UserError(f"{where}: score: expected one number per run, found {scores!r}")
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise UserError(f"{where}: score: expected numbers from 0 to 1, found {score!r}")
    return tuple(map(float, scores))
