"""A benchmark's metrics with 95 % intervals, where a metric is the mean credit of its questions.

Shape legend: Q questions of a benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.intervals import percentile_interval, resample_means
from prism_tune.schema import BenchmarkResult

_OVERALL = ("accuracy", "score", "overall")
_TOLERANCE = 0.06  # percent points a mean credit may lie off: some metrics are rounded
_MAX_SHOWN = 12


@dataclass(frozen=True)
class Metric:
    """One metric; the interval is None where the metric is no mean credit.

    `scale` is what a credit of 1 is worth (100, or 1 where the benchmark reports fractions);
    `controls` are the metric's values without the image, or with another one, by control.
    """

    name: str
    value: float
    scale: float
    interval: tuple[float, float] | None
    controls: dict[str, float]


def list_metrics(result: BenchmarkResult) -> list[Metric]:
    """The benchmark's first metrics, controls beside them."""
    controls = tuple(result.provenance.get("controls", ()))
    beside = {f"{name}_{control}" for name in result.metrics for control in controls}
    names = [name for name in result.metrics if name not in beside]
    ids = list(result.per_question)
    credits_Q = np.array([result.per_question[question] for question in ids], dtype=np.float64)
    return [_measure(result, name, ids, credits_Q, controls) for name in names[:_MAX_SHOWN]]


def _measure(
    result: BenchmarkResult,
    name: str,
    ids: list[str],
    credits_Q: NDArray[np.float64],
    controls: Iterable[str],
) -> Metric:
    value = result.metrics[name]
    found = {c: result.metrics[f"{name}_{c}"] for c in controls if f"{name}_{c}" in result.metrics}
    mask_Q = np.array([_counts(question, name) for question in ids], dtype=bool)
    if not mask_Q.any():
        return Metric(name, value, 100.0, None, found)
    mean = float(credits_Q[mask_Q].mean())
    for scale in (100.0, 1.0):
        if abs(scale * mean - value) <= _TOLERANCE * scale / 100:
            interval = percentile_interval(
                resample_means(credits_Q[None, mask_Q], np.ones((1, int(mask_Q.sum())), bool))[
                    :, 0, 0
                ]
            )
            bounds = interval and (interval[0] * scale / 100, interval[1] * scale / 100)
            return Metric(name, value, scale, bounds, found)
    return Metric(name, value, 100.0, None, found)


def _counts(question: str, metric: str) -> bool:
    """Whether a question counts in a metric: all in the overall one, else those of its group.

    The group is what stands before the number in the question's id: `open-12` is in
    `accuracy_open`.
    """
    if metric in _OVERALL:
        return True
    group = question.rpartition("-")[0]
    return bool(group) and metric.endswith(f"_{group}")
