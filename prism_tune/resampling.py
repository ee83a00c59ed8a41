"""Bootstrap over questions: credits in, resampled means and their central 95 % out.

Shape legend: B resamples, Q questions of a benchmark, R rows of a table, C columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
_QUESTION_BLOCK = 2_000_000
"""Counts held at a time (16 MB), so that 10,000 questions do not take 2,000 x 10,000."""

FloatArray = NDArray[np.float64]


def resample_means(
    credits_RQ: FloatArray, masks_CQ: NDArray[np.bool_], *, seed: int = 0
) -> FloatArray:
    """Bootstrap over questions, paired: every row and column sees the same resamples.

    Args:
        credits_RQ: each row's credit in [0, 1] on each question.
        masks_CQ: the questions each column is the mean over.
        seed: of the resampling.

    Returns:
        Means in percent, (B, R, C); NaN where a resample holds no question of a column.
    """
    num_rows, num_questions = credits_RQ.shape
    rng = np.random.default_rng(seed)
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


def percentile_interval(samples_B: FloatArray) -> tuple[float, float] | None:
    """The central 95 %; None where a resample has no finite value (a baseline near 0)."""
    if not np.isfinite(samples_B).all():
        return None
    low, high = np.percentile(samples_B, [2.5, 97.5])
    return float(low), float(high)
