"""Means and paired differences over seeds, with Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prism_tune.student_t import student_t_975


@dataclass(frozen=True)
class Spread:
    """A mean over seeds; the sample standard deviation (n - 1) needs two of them."""

    mean: float
    sd: float | None
    num_seeds: int


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference over the seeds that both have; the 95 % interval needs two of them."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and standard deviation; None of nothing."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> PairedDifference | None:
    """By seed: values minus the baseline's. None where they have no seed in common.

    A seed fixes the initialisation and the order of batches alike for both, and the interval is
    right whether or not that makes their results go together. It holds the noise of tuning and of
    drawing a subset, not that of drawing the questions, which are the same for all.
    """
    found = spread([values[seed] - baseline[seed] for seed in values.keys() & baseline.keys()])
    if found is None:
        return None
    if found.sd is None:
        return PairedDifference(found.mean, None, None, 1)
    half = student_t_975(found.num_seeds - 1) * found.sd / math.sqrt(found.num_seeds)
    return PairedDifference(found.mean, found.mean - half, found.mean + half, found.num_seeds)
