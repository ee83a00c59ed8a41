"""ScalSelect: how much of the space that instructed features span a record alone holds up.

Paper: "ScalSelect", https://arxiv.org/abs/2602.11636.
Equation: F_i = the plain mean of `hidden_states[1]` over the image tokens that the record's own
instruction attends to most (`selection.pooling: instruction`); centred, F = U S V^T; k the fewest
singular values with 90 % of the sum of squares; score = |U_k,i|^2, the leverage of record i in
their space. Keep the highest.
Option `energy`: the share that the k singular values hold.
Published: the target before tuning, one cut through the whole pool without its text-only records
(preset:published/scalselect). With `scope: per_source` each source has a space of its own.
Features of one's own (`selection.features_file`) are taken as they are.
Cost: forward (1 decoder layer and the vision tower, once per distinct record), then O(N d^2) in two
passes for d-wide features; memory d^2.

Shape legend: M records, P pairs of a feature row and a group, B rows of a block, D feature width,
K directions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config, Fraction
from prism_tune.errors import ConfigError
from prism_tune.features.reduction import add_products
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.selection.scorer_options import ScorerOptions, read_options
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, change_selection
from prism_tune.selection.unranked import Unranked

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BLOCK_BYTES = 64 << 20
_RELATIVE_RANK = 1e-10  # a direction with less than this share of the largest variance is rounding


class ScalSelectOptions(ScorerOptions):
    """`selection.options` of scalselect."""

    energy: Fraction = 0.9


def adapt(config: Config) -> Config:
    """The config with features pooled as the instruction attends.

    Raises:
        ConfigError: other features than those of images.
    """
    if config.selection.features_file is not None:
        return config
    if config.selection.features != "visual":
        raise ConfigError(
            f"selection.features: scalselect pools image tokens, got {config.selection.features}; "
            "leave it out, or take `leverage` of these features"
        )
    return change_selection(config, pooling="instruction")


def score(context: ScoringContext) -> ScoredRecords:
    """The leverage of every record in its group."""
    energy = read_options(context.config, ScalSelectOptions).energy
    features_UD, pairs = context.paired_rows()
    leverage_P = np.zeros(len(pairs.row_P))
    finite_P = np.ones(len(pairs.row_P), dtype=bool)
    dimensions = []
    for members in pairs.members():
        rows = pairs.row_P[members]
        mean_D, covariance_DD, finite = measure(features_UD, rows, pairs.count_P[members])
        basis_DK = span(covariance_DD, energy)
        for at, block_BD in read_blocks(features_UD, rows[finite]):
            places = members[np.flatnonzero(finite)[at]]
            leverage_P[places] = (((block_BD - mean_D) @ basis_DK) ** 2).sum(axis=1)
        leverage_P[members] /= pairs.count_P[members][finite].sum()
        finite_P[members] = finite
        dimensions.append(basis_DK.shape[1])
    diagnostics = {
        "num_directions": max(dimensions),
        "num_non_finite": int(pairs.count_P[~finite_P].sum()),
    }
    unranked: Unranked = {"feature_not_finite": pairs.spread(~finite_P)}
    return ScoredRecords(pairs.spread(leverage_P), diagnostics, unranked)


def read_blocks(features_UD: RowBlocks, rows: IntArray) -> Iterator[tuple[slice, FloatArray]]:
    """Some of the rows, ascending, a block at a time: their places among these, and they."""
    num_rows, width = features_UD.shape
    size = max(1, _BLOCK_BYTES // (8 * width))
    for start in range(0, num_rows, size):
        first, last = np.searchsorted(rows, [start, start + size])
        if first < last:
            block = np.asarray(features_UD[slice(start, start + size)])
            yield slice(int(first), int(last)), block[rows[first:last] - start].astype(np.float64)


def measure(
    features_UD: RowBlocks, rows: IntArray, counts: IntArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Mean, lower triangle of the covariance of the finite rows, and which these are."""
    width = features_UD.shape[1]
    finite = np.zeros(len(rows), dtype=bool)
    offset_D, sum_D, products_DD = np.zeros(width), np.zeros(width), np.zeros((width, width))
    total = 0
    for at, block_BD in read_blocks(features_UD, rows):
        finite[at] = np.isfinite(block_BD).all(axis=1)
        kept_BD, weights_B = block_BD[finite[at]], counts[at][finite[at]]
        if total == 0 and len(kept_BD):
            offset_D = kept_BD.mean(axis=0)  # near the mean: else the squares lose digits
        kept_BD = kept_BD - offset_D
        weighted_BD = kept_BD * weights_B[:, None]
        sum_D += weighted_BD.sum(axis=0)
        add_products(products_DD, weighted_BD, kept_BD)
        total += int(weights_B.sum())
    shift_D = sum_D / max(total, 1)
    covariance_DD = products_DD / max(total, 1) - np.outer(shift_D, shift_D)
    return offset_D + shift_D, covariance_DD, finite


def span(covariance_DD: FloatArray, energy: float) -> FloatArray:
    """The fewest leading directions with that share of the variance, each divided by its own.

    Singular values 3, 2 and 1: two hold 13 of 14, which is 93 %.
    """
    variances_D, vectors_DD = np.linalg.eigh(covariance_DD)
    variances_D, vectors_DD = variances_D[::-1].clip(min=0), vectors_DD[:, ::-1]
    held_D = np.cumsum(variances_D)
    if held_D[-1] <= 0:
        return vectors_DD[:, :0]
    number = int(np.searchsorted(held_D, energy * held_D[-1] * (1 - 1e-12))) + 1
    varies = variances_D[:number] > _RELATIVE_RANK * variances_D[0]
    result: FloatArray = vectors_DD[:, :number][:, varies] / np.sqrt(variances_D[:number][varies])
    return result
