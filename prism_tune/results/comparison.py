"""Rows and a column set in, everything that is compared out: scores, Rel., intervals, differences.

Shape legend: B resamples, Q questions of a benchmark, R rows, C scored columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prism_tune.intervals import (
    NUM_RESAMPLES,
    FloatArray,
    percentile_interval,
    resample_means,
    welch_half_width,
)
from prism_tune.results.columns import Column, ColumnSet, column_scores
from prism_tune.results.relative import (
    Relative,
    leave_one_out,
    mean_and_sd,
    relative_samples,
    relative_score,
)
from prism_tune.results.rows import Row

Scores = dict[str, float | None]
_TOLERANCE = 0.06
"""Percent points a mean credit may lie off its metric: some metrics are rounded to one decimal."""


@dataclass(frozen=True)
class Difference:
    """Rel. of a row minus Rel. of another.

    `interval` is the paired 95 % bootstrap interval over questions, of the columns that can be
    resampled (None where there is none); `spread` half of the 95 % interval over seeds, by Welch's
    t (None with one seed).
    """

    value: float
    interval: tuple[float, float] | None
    spread: float | None

    @property
    def is_noise(self) -> bool | None:
        """Whether 0 is within the interval or the spread; None where neither is known."""
        if self.interval is None and self.spread is None:
            return None
        if self.spread is not None and abs(self.value) <= self.spread:
            return True
        if self.interval is None:
            return False
        low, high = self.interval
        return low <= 0 if self.value > 0 else high >= 0


@dataclass(frozen=True)
class Comparison:
    """Rows measured alike, over one column set."""

    rows: tuple[Row, ...]
    columns: ColumnSet

    def values(self, row: Row, column: Column) -> list[float] | None:
        """The column's value of each run of the row; None where one of them lacks it."""
        found = [column_scores([column], run.results)[column.label] for run in row.runs]
        present = [value for value in found if value is not None]
        return present if len(present) == len(found) else None

    def mean_scores(self, row: Row) -> Scores:
        """The row's mean over its runs, per scored column; None where one of them lacks it."""
        scores: Scores = {}
        for column in self.columns.scored:
            values = self.values(row, column)
            scores[column.label] = mean_and_sd(values)[0] if values else None
        return scores

    def relative(self, row: Row, baseline: Row) -> Relative:
        """Rel. of the row's mean scores."""
        return relative_score(self.mean_scores(row), self.mean_scores(baseline))

    def relative_sd(self, row: Row, baseline: Row) -> float | None:
        """Standard deviation over the row's runs of Rel. to the baseline's mean scores."""
        used = self.relative(row, baseline).columns
        reference = {k: v for k, v in self.mean_scores(baseline).items() if k in used}
        per_run = [
            relative_score(column_scores(self.columns.scored, run.results), reference).value
            for run in row.runs
        ]
        return mean_and_sd([value for value in per_run if value is not None] or [0.0])[1]

    def leave_one_out(self, row: Row, baseline: Row) -> dict[str, float]:
        """Rel. without each benchmark in turn."""
        owners = {column.label: column.benchmark for column in self.columns.scored}
        return leave_one_out(self.mean_scores(row), self.mean_scores(baseline), owners)

    def interval(self, row: Row, baseline: Row) -> tuple[float, float] | None:
        """The paired 95 % bootstrap interval over questions, of Rel. over the resampled columns."""
        samples_B = self._relative_samples(row, baseline)
        return None if samples_B is None else percentile_interval(samples_B)

    def difference(self, row: Row, other: Row, baseline: Row) -> Difference | None:
        """Rel. of `row` minus Rel. of `other`; None unless both are over the same columns."""
        mine, theirs = self.relative(row, baseline), self.relative(other, baseline)
        if mine.value is None or theirs.value is None or mine.columns != theirs.columns:
            return None
        a_B, b_B = self._relative_samples(row, baseline), self._relative_samples(other, baseline)
        interval = None if a_B is None or b_B is None else percentile_interval(a_B - b_B)
        return Difference(mine.value - theirs.value, interval, self._spread(row, other, baseline))

    @cached_property
    def resampled(self) -> tuple[str, ...]:
        """The scored columns that can be resampled; intervals are of Rel. over these only."""
        return tuple(self._samples[1])

    def _spread(self, row: Row, other: Row, baseline: Row) -> float | None:
        a, b = self.relative_sd(row, baseline), self.relative_sd(other, baseline)
        if a is None or b is None:
            return None
        return welch_half_width(a, len(row.runs), b, len(other.runs))

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
            masks = self._resampled_masks(benchmark, question_ids, credits_RQ, measured_RC)
            if masks:
                samples_BRC[:, :, list(masks)] = resample_means(
                    credits_RQ, np.stack(list(masks.values()))
                )
                resampled += [scored[k].label for k in masks]
        return samples_BRC, resampled

    def _question_ids(self, benchmark: str) -> list[str]:
        results = [run.results.get(benchmark) for row in self.rows for run in row.runs]
        found = {question for r in results if r is not None for question in r.per_question}
        return sorted(found)

    def _resampled_masks(
        self,
        benchmark: str,
        question_ids: Sequence[str],
        credits_RQ: FloatArray,
        measured_RC: FloatArray,
    ) -> dict[int, NDArray[np.bool_]]:
        """Column index -> its questions, for the columns that are the mean credit of these."""
        masks: dict[int, NDArray[np.bool_]] = {}
        for k, column in enumerate(self.columns.scored):
            if column.benchmark != benchmark or column.questions is None:
                continue
            mask_Q = np.array([_belongs(column.questions, q) for q in question_ids])
            if not mask_Q.any() or np.isnan(measured_RC[:, k]).all():
                continue
            off_R = 100 * credits_RQ[:, mask_Q].mean(axis=1) - measured_RC[:, k]
            if np.nanmax(np.abs(off_R)) <= _TOLERANCE:
                masks[k] = mask_Q
        return masks


def _belongs(questions: str, question_id: str) -> bool:
    return questions == "all" or question_id.startswith(questions)


def _credits(row: Row, benchmark: str, question_ids: Sequence[str]) -> FloatArray:
    """The row's mean credit on each question; NaN where one of its runs lacks the benchmark."""
    results = [run.results.get(benchmark) for run in row.runs]
    per_run = [
        [float("nan")] * len(question_ids)
        if result is None
        else [result.per_question.get(question, float("nan")) for question in question_ids]
        for result in results
    ]
    credits_Q: FloatArray = np.array(per_run, dtype=np.float64).mean(axis=0)
    return credits_Q


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
