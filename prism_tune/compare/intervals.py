"""Means and paired differences over seeds, with Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The 97.5 % points of Student's t with 1, 2, ... 30 degrees of freedom.
_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL_975 = statistics.NormalDist().inv_cdf(0.975)


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


def student_t_975(degrees: int) -> float:
    """The 97.5 % point of Student's t; beyond 30 degrees of freedom by its expansion in 1/df."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = _NORMAL_975
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
