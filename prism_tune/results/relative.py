"""Rel., the one number a table ends in: scores and a baseline's scores in, percent out.

Rel. = 100 x unweighted mean over columns of score / baseline score. It reproduces the paper's
Vision-Flan table (94.1 and 100.9) to the digit.

Shape legend: B resamples, R rows of a table, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_tune.errors import UserError
from prism_tune.intervals import FloatArray
from prism_tune.schema import BenchmarkResult


@dataclass(frozen=True)
class Relative:
    """Rel. in percent (None where no column is left), and the columns it is a mean over."""

    value: float | None
    columns: tuple[str, ...]
    skipped: tuple[str, ...]


def relative_score(
    scores: Mapping[str, float | None], baseline: Mapping[str, float | None]
) -> Relative:
    """Rel. over the columns of `baseline`.

    A column is skipped, and named, where either side has no value or the baseline is not positive
    (an untuned model may score 0, and nothing can be divided by that).
    """
    ratios: dict[str, float] = {}
    for column, reference in baseline.items():
        score = scores.get(column)
        if score is not None and reference is not None and reference > 0:
            ratios[column] = score / reference
    skipped = tuple(column for column in baseline if column not in ratios)
    value = 100 * sum(ratios.values()) / len(ratios) if ratios else None
    return Relative(value, tuple(ratios), skipped)


def leave_one_out(
    scores: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
    benchmarks: Mapping[str, str],
) -> dict[str, float]:
    """Rel. without each benchmark in turn: how much the number leans on one of them.

    Args:
        scores: per column.
        baseline: per column.
        benchmarks: the benchmark of each column.

    Returns:
        Left-out benchmark -> Rel.; empty where fewer than two benchmarks count.
    """
    used = relative_score(scores, baseline).columns
    names = dict.fromkeys(benchmarks[column] for column in used)
    if len(names) < 2:
        return {}
    without: dict[str, float] = {}
    for name in names:
        rest = {c: v for c, v in baseline.items() if benchmarks[c] != name}
        value = relative_score(scores, rest).value
        assert value is not None
        without[name] = value
    return without


def check_comparable(results: Mapping[str, Mapping[str, BenchmarkResult]]) -> None:
    """Refuse to put numbers side by side that were not measured alike.

    Args:
        results: run name -> benchmark -> result.

    Raises:
        UserError: the runs differ (see `find_differences`).
    """
    for difference in find_differences(results):
        raise UserError(
            f"{difference}; such scores cannot be compared. Evaluate them alike (profile, judge, "
            "annotations and limit), or leave one out of --runs"
        )


def find_differences(results: Mapping[str, Mapping[str, BenchmarkResult]]) -> list[str]:
    """In what runs differ, on one benchmark: rules, judge, data or questions; one of them each.

    Args:
        results: run name -> benchmark -> result.
    """
    benchmarks = dict.fromkeys(name for of_run in results.values() for name in of_run)
    found = []
    for benchmark in benchmarks:
        present = {run: of_run[benchmark] for run, of_run in results.items() if benchmark in of_run}
        difference = _find_difference(present)
        if difference:
            found.append(f"{benchmark}: {difference}")
    return found


def _find_difference(results: Mapping[str, BenchmarkResult]) -> str | None:
    """Between the runs' results of one benchmark."""
    data = {run: r.provenance.get("data") for run, r in results.items()}
    measured: dict[str, dict[str, Any]] = {
        "profile": {run: r.profile for run, r in results.items()},
        "judge": {run: r.provenance.get("judge") for run, r in results.items()},
        "metric": {run: r.provenance.get("metric") for run, r in results.items()},
        "use of a chat template": {
            run: bool(r.provenance.get("chat_template")) for run, r in results.items()
        },
        "data": {run: d for run, d in data.items() if d is not None},
        "number of questions": {run: r.num_examples for run, r in results.items()},
    }
    for what, values in measured.items():
        if len({str(value) for value in values.values()}) > 1:
            listed = "; ".join(f"{run}: {value}" for run, value in values.items())
            return f"the runs differ in {what} ({listed})"
    first_run, first = next(iter(results.items()))
    for run, result in results.items():
        if result.per_question.keys() != first.per_question.keys():
            return f"{first_run} and {run} answered different questions"
    return None


def relative_samples(samples_BRC: FloatArray, row: int, baseline: int) -> FloatArray:
    """Rel. in each resample, (B,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios_BC = samples_BRC[:, row] / samples_BRC[:, baseline]
    rel_B: FloatArray = 100 * ratios_BC.mean(axis=1)
    return rel_B
