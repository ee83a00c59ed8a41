"""Amortised visual gain: measured on a few records, predicted for all.

Ours, of `losses/visual_gain.py`, which measures every record by the whole model and twice.
Equation: with x = [image; text] of a record (`short_rows.py`), k = x.y + k_v k_t the linear kernel
and the product of both RBFs (`density.Rbf` with w = 1), and g the gains measured, centred in
their groups (the sources, also with `scope: global`), the ridge of k fits g with an intercept of
each group,

    min over f, a of sum_i (g_i - a_group(i) - f(x_i))^2 + lambda |f|_k^2,

by the features [x; k_v k_t with L landmarks, whitened]: exact up to L measured records, Nystrom's
beyond. lambda is that of the least leave-one-out error, in closed form: e_i / (1 - S_ii) with S the
smoother, intercepts included. R^2 is 1 minus that error over the one of the groups' means, left out
in the same way: what the prediction knows *inside* a source. Below 0.1 it is refused: a rank by it
would be noise under the name of a gain.
r_i = (rank of f(x_i) in its group + 1/2) / size, the mean rank among equals; 0.5 without image.
Cost: forward (the whole model twice, on a share of the records), O(m L^2) and O(N L K).

Shape legend: M records, P rows, m measured records, L landmarks, F features, K components,
G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prism_tune.errors import UserError
from prism_tune.features.row_pairs import split_by
from prism_tune.selection.scorers.kernels.density import (
    FloatArray,
    IntArray,
    Rbf,
    choose_bandwidth,
    sum_kernel,
)
from prism_tune.selection.scorers.kernels.short_rows import ShortRows, join_rows, sample_rows
from prism_tune.selection.scorers.losses.visual_gain import measure_gain
from prism_tune.selection.scorers.pick_order import mean_ranks
from prism_tune.selection.scorers.readable import none_readable
from prism_tune.selection.scorers.scorer import ScoringContext, code_sources
from prism_tune.selection.subset import hash_uids

MIN_R2 = 0.1
"""Of the prediction, left one out."""
NUM_LANDMARKS = 1024
MOST_FITTED = 32_768
"""Measured records that the fit looks at: four matrices of 300 MB."""

_RIDGES = np.logspace(-6, 1, 22)
"""As shares of the largest eigenvalue."""
_RELATIVE_RANK = 1e-10


@dataclass(frozen=True)
class Prediction:
    """What the measured gains say of all records.

    Attributes:
        gain_M: of every record, but for a constant of its group.
        r2: left one out, inside groups; 0 where it cannot be told.
        num_measured: records that it was fitted to.
    """

    gain_M: FloatArray
    r2: float
    num_measured: int


def predict_gain(
    gain_M: FloatArray,
    rows: ShortRows,
    group_M: IntArray,
    rbf: Rbf,
    order_M: IntArray,
    landmarks: int = NUM_LANDMARKS,
) -> Prediction:
    """Fit the measured gains, and predict.

    Args:
        gain_M: NaN where it was not measured.
        rows: [image; text] of the records.
        group_M: numbers of the groups, each of which has an intercept.
        rbf: k_v k_t.
        order_M: the records in the order of their uids' hashes.
        landmarks: how many of the measured records, the first of the order, are landmarks.
    """
    known = order_M[np.isfinite(gain_M[order_M])][:MOST_FITTED]
    counts_G = np.bincount(group_M[known])
    known = known[counts_G[group_M[known]] > 1]  # one alone says nothing of its group's inside
    if not len(known):
        return Prediction(np.zeros(len(gain_M)), 0.0, 0)
    rows_mK = rows.values_PK[rows.of_record_M[known]]
    landmarks_LK = rows_mK[:landmarks]
    whiten_LF = _whiten(rbf(landmarks_LK, landmarks_LK))
    features_mF = np.concatenate([rows_mK, rbf(rows_mK, landmarks_LK) @ whiten_LF], axis=1)
    weights_F, r2 = fit_ridge(features_mF, gain_M[known], group_M[known])
    width = rows_mK.shape[1]
    on_landmarks_L = whiten_LF @ weights_F[width:]
    predicted_P = rows.values_PK @ weights_F[:width]
    predicted_P += sum_kernel(rows.values_PK, landmarks_LK, on_landmarks_L, rbf)
    return Prediction(predicted_P[rows.of_record_M], r2, len(known))


def fit_ridge(
    features_mF: FloatArray, targets_m: FloatArray, group_m: IntArray
) -> tuple[FloatArray, float]:
    """The weights (F,) of the least leave-one-out error, and its R^2 against the groups' means.

    Args:
        features_mF: of the measured records.
        targets_m: what was measured.
        group_m: numbers of groups, in each of which there are at least two.
    """
    free_m = 1 - 1 / np.bincount(group_m)[group_m]  # of the groups' means: 1 - their own share
    centred_m = _centre(targets_m[:, None], group_m)[:, 0]
    centred_mF = _centre(features_mF, group_m)
    by_means = float(((centred_m / free_m) ** 2).sum())
    scales_F, turn_FF = np.linalg.eigh(centred_mF.T @ centred_mF)
    turned_mF = centred_mF @ turn_FF
    along_F = turned_mF.T @ centred_m
    squares_mF = turned_mF**2
    largest = float(scales_F[-1])
    if by_means <= 0 or largest <= 0:
        return np.zeros(features_mF.shape[1]), 0.0
    found: list[tuple[float, FloatArray]] = []
    for ridge in _RIDGES * largest:
        shrunk_F = 1 / (np.maximum(scales_F, 0) + ridge)
        weights_F = along_F * shrunk_F
        freedom_m = np.maximum(free_m - squares_mF @ shrunk_F, _RELATIVE_RANK)
        errors_m = (centred_m - turned_mF @ weights_F) / freedom_m
        found.append((float((errors_m**2).sum()), weights_F))
    error, weights_F = min(found, key=lambda each: each[0])
    return turn_FF @ weights_F, 1 - error / by_means


def rank_inside(values_M: FloatArray, group_M: IntArray) -> FloatArray:
    """(rank + 1/2) / size inside each group, the mean among equals, (M,)."""
    ranks_M = np.empty(len(values_M))
    for members in split_by(group_M):
        ranks_M[members] = (mean_ranks(values_M[members]) + 0.5) / len(members)
    return ranks_M


def rank_gain(
    context: ScoringContext, images: ShortRows, texts: ShortRows, *, shuffle: bool
) -> tuple[FloatArray, dict[str, Any]]:
    """The r of every record inside its source, (M,), and what the manifest says.

    Args:
        context: its losses, sources and seed are read.
        images: the records' rows.
        texts: the rows of their texts.
        shuffle: deal the ranks out anew inside each source, by the seed.

    Raises:
        UserError: no finite gain, or R^2 below 0.1.
    """
    hashes_M = hash_uids(context.uids)
    order_M = np.argsort(hashes_M, kind="stable")
    is_text_M = context.pool.is_text_only_N[context.records_M]
    gain_M = np.where(is_text_M, np.nan, measure_gain(context))
    if not np.isfinite(gain_M).any():
        raise none_readable(context)
    bandwidths = [
        choose_bandwidth(sample_rows(rows, order_M), "median") for rows in (images, texts)
    ]
    rbf = Rbf(bandwidths[0], 1.0, bandwidths[1], images.num_columns)
    rows = join_rows(images, texts)
    _, source_M = code_sources(context)  # not the rows' groups: with `scope: global` there is one
    found = predict_gain(gain_M, rows, source_M, rbf, order_M)
    _require_predictable(found)
    ranks_M = rank_inside(found.gain_M, source_M)
    ranks_M[is_text_M] = 0.5
    if shuffle:
        rng = np.random.default_rng(context.config.seed)
        for members in split_by(source_M, order_M):
            ranks_M[members] = rng.permutation(ranks_M[members])
    described = {
        "gain_r2": found.r2,
        "num_gains_measured": found.num_measured,
        "mean_gain": float(np.nanmean(gain_M)),
    }
    return ranks_M, described


def _require_predictable(found: Prediction) -> None:
    if found.r2 >= MIN_R2:
        return
    raise UserError(
        f"kernel_repulsion: selection.options.gamma asks for the visual gain, but as measured on "
        f"{found.num_measured:,} records it cannot be predicted for the others: leave-one-out "
        f"R^2 = {found.r2:.2f} inside sources, {MIN_R2} is the least; measure more "
        "(selection.options.gain_share), or leave gamma out"
    )


def _centre(values_mF: FloatArray, group_m: IntArray) -> FloatArray:
    """Less the mean of each group."""
    sums_GF = np.zeros((int(group_m.max()) + 1, values_mF.shape[1]))
    np.add.at(sums_GF, group_m, values_mF)
    means_GF = sums_GF / np.maximum(np.bincount(group_m), 1)[:, None]
    return values_mF - means_GF[group_m]


def _whiten(kernel_LL: FloatArray) -> FloatArray:
    """What makes of kernels with the landmarks features whose products are the kernel, (L, F)."""
    values_L, vectors_LL = np.linalg.eigh(kernel_LL)
    kept = values_L > _RELATIVE_RANK * values_L[-1]
    return vectors_LL[:, kept] / np.sqrt(values_L[kept])
