"""The only statistics: means over seeds, differences with Student's t, bootstrap over questions.

Shape legend: B resamples, Q questions of a benchmark, R rows of a table, C columns, G groups.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
_QUESTION_BLOCK = 2_000_000
"""Counts held at a time (16 MB), so that 10,000 questions do not take 2,000 x 10,000."""
_NO_SPREAD = 1e-9
"""In points: what rounding leaves of differences that are all the same."""
_EQUAL = 1e-9
"""Of the largest: what rounding leaves of equal scores."""

FloatArray = NDArray[np.float64]


def resample_means(
    credits_RQ: FloatArray, masks_CQ: NDArray[np.bool_], benchmark: str
) -> FloatArray:
    """Bootstrap over questions, paired: every row and column sees the same resamples.

    Args:
        credits_RQ: each row's credit in [0, 1] on each question.
        masks_CQ: the questions each column is the mean over.
        benchmark: whose questions they are. Its name is the seed: the same resamples for all that
            is asked of it, and others for another benchmark with as many questions.

    Returns:
        Means in percent, (B, R, C); NaN where a resample holds no question of a column.
    """
    num_rows, num_questions = credits_RQ.shape
    rng = np.random.default_rng(zlib.crc32(benchmark.encode()))
    masks_QC = masks_CQ.T.astype(np.float64)
    masked_Q_RC = np.einsum("rq,qc->qrc", credits_RQ, masks_QC).reshape(num_questions, -1)
    block = max(1, _QUESTION_BLOCK // num_questions)
    means: list[FloatArray] = []
    for start in range(0, NUM_RESAMPLES, block):
        size = min(block, NUM_RESAMPLES - start)
        counts_BQ = _draw_counts(rng, size, num_questions)
        sums_BRC = (counts_BQ @ masked_Q_RC).reshape(size, num_rows, -1)
        with np.errstate(invalid="ignore"):
            means.append(100 * sums_BRC / (counts_BQ @ masks_QC)[:, None, :])
    return np.concatenate(means)


def _draw_counts(rng: np.random.Generator, size: int, num_questions: int) -> FloatArray:
    """How often each question is drawn in each of `size` resamples."""
    drawn = rng.integers(num_questions, size=(size, num_questions))
    flat = (drawn + np.arange(size)[:, None] * num_questions).ravel()
    counts = np.bincount(flat, minlength=size * num_questions)
    return counts.reshape(size, num_questions).astype(np.float64)


def are_equal(low_G: FloatArray, high_G: FloatArray) -> NDArray[np.bool_]:
    """Of groups of finite scores between these: whether rounding alone tells them apart, (G,)."""
    rounding_G = _EQUAL * np.maximum(abs(low_G), abs(high_G))
    equal_G: NDArray[np.bool_] = high_G - low_G <= rounding_G + np.finfo(np.float64).tiny
    return equal_G


def percentile_interval(samples_B: FloatArray) -> tuple[float, float] | None:
    """The central 95 %; None where a resample has no finite value (a baseline near 0).

    None as well where it has no width, as of one question: it would call the value certain.
    """
    if not np.isfinite(samples_B).all():
        return None
    low, high = (float(bound) for bound in np.percentile(samples_B, [2.5, 97.5]))
    return (low, high) if high - low > _NO_SPREAD else None


def difference_interval(samples_B: FloatArray) -> tuple[float, float] | None:
    """Likewise of a difference; (0, 0) where no resample has one, which is noise and not unknown.

    Args:
        samples_B: the difference in each resample.
    """
    alike = bool((np.abs(samples_B) <= _NO_SPREAD).all())
    return (0.0, 0.0) if alike else percentile_interval(samples_B)


def student_t_975(degrees: int) -> float:
    """The 97.5 % point of Student's t."""
    from scipy.special import stdtrit  # here: loaded only where there are seeds to compare

    return float(stdtrit(degrees, 0.975))


def detectable_difference(sd: float, num_seeds: int) -> float:
    """The true difference that a paired test at 95 % finds four times in five.

    With the noncentrality found here, t of n - 1 degrees of freedom is beyond its 97.5 % point
    with 80 %.

    Args:
        sd: of the differences over seeds.
        num_seeds: at least two.
    """
    from scipy.special import nctdtrinc  # here: loaded only where there are seeds to compare

    degrees = num_seeds - 1
    noncentrality = float(nctdtrinc(degrees, 0.2, student_t_975(degrees)))
    return noncentrality * sd / math.sqrt(num_seeds)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean over seeds (Student's t); None unless two values differ."""
    found = spread(values)
    if found is None or found.sd is None:
        return None
    half = student_t_975(found.num_seeds - 1) * found.sd / math.sqrt(found.num_seeds)
    return None if half <= _NO_SPREAD else (found.mean - half, found.mean + half)


def welch_half_width(sd_a: float, num_a: int, sd_b: float, num_b: int) -> float:
    """Half of the 95 % interval of a difference of two means of unpaired values (Welch).

    The degrees of freedom (Welch and Satterthwaite) are rounded down, so the interval is not too
    short.

    Args:
        sd_a: sample standard deviation (n - 1) of the one.
        num_a: of how many values, at least two.
        sd_b: of the other.
        num_b: likewise.
    """
    a, b = sd_a**2 / num_a, sd_b**2 / num_b
    if a + b == 0:
        return 0.0
    degrees = (a + b) ** 2 / (a**2 / (num_a - 1) + b**2 / (num_b - 1))
    return student_t_975(max(1, math.floor(degrees + 1e-9))) * math.sqrt(a + b)


@dataclass(frozen=True)
class Spread:
    """A mean over seeds; the sample standard deviation (n - 1) needs two of them."""

    mean: float
    sd: float | None
    num_seeds: int


Test = Literal["paired", "welch"]


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds; `low` to `high` is its 95 % interval where seeds suffice.

    `test` says how it was taken: "paired" by Student's t over the differences under the `num_seeds`
    seeds that both have, "welch" where the runs are not paired; None without an interval.
    `is_constant`: the seeds are enough and come out alike, but for a difference that is not 0. An
    interval of no width would call it certain after two seeds; there is none.
    """

    mean: float
    low: float | None
    high: float | None
    num_seeds: int
    test: Test | None
    is_constant: bool = False

    @property
    def is_noise(self) -> bool | None:
        """Whether 0 is within the interval; None without one."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and standard deviation; None of nothing."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Values minus the baseline's: the one comparison over seeds. None where a side has none.

    Runs of one seed are paired: it fixes the initialisation and the order of batches alike for
    both, and the paired interval is right whether or not that makes their results go together. So
    the differences are taken over the seeds that both have; where fewer than two are shared but
    both have two, Welch's interval is taken of all. It holds the noise of tuning and of drawing a
    subset, not that of drawing the questions, which are the same for all.

    Args:
        values: by seed.
        baseline: by seed.
    """
    shared = spread([values[seed] - baseline[seed] for seed in values.keys() & baseline.keys()])
    if shared is not None and shared.sd is not None:
        half = student_t_975(shared.num_seeds - 1) * shared.sd / math.sqrt(shared.num_seeds)
        return _judge(shared.mean, half, shared.num_seeds, "paired")
    a, b = spread(list(values.values())), spread(list(baseline.values()))
    if a is None or b is None:
        return None
    num_shared = 0 if shared is None else 1
    mean = a.mean - b.mean
    if a.sd is not None and b.sd is not None:
        half = welch_half_width(a.sd, a.num_seeds, b.sd, b.num_seeds)
        return _judge(mean, half, num_shared, "welch")
    return Difference(mean if shared is None else shared.mean, None, None, num_shared, None)


def _judge(mean: float, half: float, num_seeds: int, test: Test) -> Difference:
    """With its interval, unless that has no width and the mean is not 0."""
    if half <= _NO_SPREAD:
        if abs(mean) > _NO_SPREAD:
            return Difference(mean, None, None, num_seeds, None, is_constant=True)
        mean = half = 0.0
    return Difference(mean, mean - half, mean + half, num_seeds, test)
