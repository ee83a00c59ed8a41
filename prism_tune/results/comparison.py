"""Rows and a column set in, everything that is compared out: scores, Rel., intervals, differences.

Shape legend: B resamples, Q questions of a benchmark, R rows, C scored columns.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.intervals import (
    NUM_RESAMPLES,
    Difference,
    FloatArray,
    difference,
    difference_interval,
    mean_interval,
    percentile_interval,
    resample_means,
    spread,
)
from prism_tune.results.columns import Column, ColumnSet, column_scores, mean_questions
from prism_tune.results.relative import (
    Relative,
    leave_one_out,
    relative_samples,
    relative_score,
)
from prism_tune.results.rows import BaselineOf, Row, is_listed, random_beside
from prism_tune.schema import BenchmarkResult

Scores = dict[str, float | None]
Finding = Literal["no Random", "no Rel.", "unknown", "noise", "ahead", "behind", "beat", "lost"]
"""A selector's Rel. beside Random's; one seed says which run is ahead, not which selector won."""


@dataclass(frozen=True)
class RelDifference:
    """Rel. of a row minus Rel. of another.

    `questions` is the paired 95 % bootstrap interval over questions, of the columns that can be
    resampled (None where there is none); `seeds` the difference over seeds (see `intervals.py`).
    """

    value: float
    questions: tuple[float, float] | None
    seeds: Difference

    @property
    def is_noise(self) -> bool | None:
        """Whether 0 is within one of the intervals; None where neither is known."""
        if self.seeds.is_noise or self.questions is None:
            return self.seeds.is_noise
        low, high = self.questions
        return low <= 0 if self.value > 0 else high >= 0


@dataclass(frozen=True)
class Verdict:
    """How a selector did beside Random; `other` and `difference` are None where there is none."""

    row: Row
    finding: Finding
    other: Row | None = None
    difference: RelDifference | None = None


@dataclass(frozen=True)
class Comparison:
    """Rows measured alike, over one column set; `baseline_of` is what Rel. of a row refers to."""

    rows: tuple[Row, ...]
    columns: ColumnSet
    baseline_of: BaselineOf

    def values(self, row: Row, column: Column) -> list[float] | None:
        """The column's value under each seed of the row; None where one of its runs lacks it."""
        found = [column_scores([column], run.results)[column.label] for run in row.runs]
        return None if None in found else list(row.by_seed(found).values())

    def mean_scores(self, row: Row) -> Scores:
        """The row's mean over its seeds, per scored column; None where one of its runs lacks it."""
        scores: Scores = {}
        for column in self.columns.scored:
            values = self.values(row, column)
            scores[column.label] = statistics.fmean(values) if values else None
        return scores

    def relative(self, row: Row, baseline: Row) -> Relative:
        """Rel. of the row's mean scores."""
        return relative_score(self.mean_scores(row), self.mean_scores(baseline))

    def relative_sd(self, row: Row, baseline: Row) -> float | None:
        """Standard deviation over the row's seeds of Rel. to the baseline's mean scores."""
        found = spread(list(self._relative_by_seed(row, baseline).values()))
        return found.sd if found else None

    def seeds_interval(self, row: Row, baseline: Row) -> tuple[float, float] | None:
        """The 95 % interval over seeds of Rel. to the baseline's mean scores; None with one."""
        return mean_interval(list(self._relative_by_seed(row, baseline).values()))

    def performances(self, row: Row) -> dict[int, float]:
        """Seed -> mean of the scored columns; without runs that lack one of them."""
        scored = self.columns.scored
        per_run = [list(column_scores(scored, run.results).values()) for run in row.runs]
        means = [
            None if None in scores else statistics.fmean(s for s in scores if s is not None)
            for scores in per_run
        ]
        return row.by_seed(means)

    def leave_one_out(self, row: Row, baseline: Row) -> dict[str, float]:
        """Rel. without each benchmark in turn."""
        owners = {column.label: column.benchmark for column in self.columns.scored}
        return leave_one_out(self.mean_scores(row), self.mean_scores(baseline), owners)

    def interval(self, row: Row, baseline: Row) -> tuple[float, float] | None:
        """The paired 95 % bootstrap interval over questions, of Rel. over the resampled columns."""
        samples_B = self._relative_samples(row, baseline)
        return None if samples_B is None else percentile_interval(samples_B)

    def difference(self, row: Row, other: Row, baseline: Row) -> RelDifference | None:
        """Rel. of `row` minus Rel. of `other`; None unless both are over the same columns.

        Where the runs are paired, of those under the seeds that both have.
        """
        mine, theirs = self.relative(row, baseline), self.relative(other, baseline)
        if mine.value is None or theirs.value is None or mine.columns != theirs.columns:
            return None
        a, b = (self._relative_by_seed(r, baseline) for r in (row, other))
        seeds = difference(a, b)
        assert seeds is not None
        shared = a.keys() & b.keys()
        if seeds.test != "welch" and shared and len(shared) < len(a.keys() | b.keys()):
            row, other = row.under(shared), other.under(shared)
            used = tuple(c for c in self.columns.columns if c.label in mine.columns)
            columns = ColumnSet(self.columns.name, used)
            paired = Comparison((row, other, baseline), columns, self.baseline_of)
            return paired.difference(row, other, baseline)
        a_B, b_B = self._relative_samples(row, baseline), self._relative_samples(other, baseline)
        with np.errstate(invalid="ignore"):  # both infinite where nothing is left to divide by
            interval = None if a_B is None or b_B is None else difference_interval(a_B - b_B)
        return RelDifference(mine.value - theirs.value, interval, seeds)

    def verdicts(self) -> list[Verdict]:
        """Of each selector but Random that has something to be judged by."""
        found = []
        for row in self.rows:
            if not row.first.is_selected or row.is_random:
                continue
            other, baseline = random_beside(row, self.rows), self.baseline_of(row)
            is_drawn = row.first.config.selection.scorer == "random" and not is_listed(row.first)
            if other is None and is_drawn:
                continue  # beside a list that is in every row: it is what they are judged by
            if other is None:
                found.append(Verdict(row, "no Random"))
            elif baseline is not None:
                between = self.difference(row, other, baseline)
                found.append(Verdict(row, _find(between), other, between))
        return found

    @cached_property
    def resampled(self) -> tuple[str, ...]:
        """The scored columns that can be resampled; intervals are of Rel. over these only."""
        return tuple(self._samples[1])

    def _relative_by_seed(self, row: Row, baseline: Row) -> dict[int, float]:
        used = self.relative(row, baseline).columns
        reference = {k: v for k, v in self.mean_scores(baseline).items() if k in used}
        per_run = [
            relative_score(column_scores(self.columns.scored, run.results), reference).value
            for run in row.runs
        ]
        return row.by_seed(per_run)

    def _relative_samples(self, row: Row, baseline: Row) -> FloatArray | None:
        samples_BRC, resampled = self._samples
        used = set(self.relative(row, baseline).columns) & set(resampled)
        if not used:
            return None
        indices = [k for k, column in enumerate(self.columns.scored) if column.label in used]
        return relative_samples(
            samples_BRC[:, :, indices], self.rows.index(row), self.rows.index(baseline)
        )

    @cached_property
    def _samples(self) -> tuple[FloatArray, list[str]]:
        """(B, R, C) scores of every resample, and the labels of the columns that vary in them."""
        scored = self.columns.scored
        measured_RC = np.array(
            [[_or_nan(self.mean_scores(row)[c.label]) for c in scored] for row in self.rows]
        )
        samples_BRC = np.repeat(measured_RC[None], NUM_RESAMPLES, axis=0)
        resampled: list[str] = []
        for benchmark in self.columns.benchmarks:
            question_ids = self._question_ids(benchmark)
            if not question_ids:
                continue
            credits_RQ = np.stack([_credits(row, benchmark, question_ids) for row in self.rows])
            masks = self._resampled_masks(benchmark, question_ids)
            if masks:
                samples_BRC[:, :, list(masks)] = resample_means(
                    credits_RQ, np.stack(list(masks.values())), benchmark
                )
                resampled += [scored[k].label for k in masks]
        return samples_BRC, resampled

    def _question_ids(self, benchmark: str) -> list[str]:
        return sorted({q for result in self._results(benchmark) for q in result.per_question})

    def _resampled_masks(
        self, benchmark: str, question_ids: Sequence[str]
    ) -> dict[int, NDArray[np.bool_]]:
        """Column index -> its questions, for the columns that are the mean credit of these."""
        masks: dict[int, NDArray[np.bool_]] = {}
        for k, column in enumerate(self.columns.scored):
            if column.benchmark != benchmark or len(column.metrics) > 1:
                continue
            (metric,) = column.metrics
            groups = [
                mean_questions(result, metric)
                for result in self._results(benchmark)
                if result.metrics.get(metric) is not None
            ]
            if groups and groups[0] is not None and None not in groups:
                masks[k] = np.isin(question_ids, groups[0])
        return masks

    def _results(self, benchmark: str) -> list[BenchmarkResult]:
        found = [run.results.get(benchmark) for row in self.rows for run in row.runs]
        return [result for result in found if result is not None]


def _find(between: RelDifference | None) -> Finding:
    if between is None:
        return "no Rel."
    if between.is_noise is None:
        return "unknown"
    if between.is_noise:
        return "noise"
    if between.seeds.test is None:
        return "ahead" if between.value > 0 else "behind"
    return "beat" if between.value > 0 else "lost"


def _credits(row: Row, benchmark: str, question_ids: Sequence[str]) -> FloatArray:
    """The mean credit on each question, over seeds; NaN where a run lacks the benchmark."""
    by_seed: dict[int, list[list[float]]] = {}
    for run in row.runs:
        result = run.results.get(benchmark)
        credits = {} if result is None else result.per_question
        listed = [credits.get(question, float("nan")) for question in question_ids]
        by_seed.setdefault(run.config.seed, []).append(listed)
    credits_Q: FloatArray = np.array([np.mean(c, axis=0) for c in by_seed.values()]).mean(axis=0)
    return credits_Q


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
