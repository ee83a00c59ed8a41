"""PRISM's redundancy score, exact, streaming and out of core.

A feature matrix (array, memory map or store) goes in; one float64 score per record comes out.
arXiv 2502.12119, section 3: features are centred, *then* normalised (u), and the score of record i
is the mean cosine to the others, R_i = 1/(N-1) sum_{j != i} u_i.u_j. With s = sum_j u_j this is
R_i = (u_i.s - 1)/(N-1): exact, O(N D), and never an N x N matrix.

Hence PRISM ranks along one direction, s: there is no diversity term, and near duplicates of a
record with a low score all have a low score.

Shape legend: N records, U feature rows, P pairs of a row and a group, D feature width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import UserError
from prism_tune.features.redundancy_scan import Centering, FloatArray, RedundancyScan
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.row_pairs import pair_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Redundancy:
    """Scores, and which records had no direction to score (their score is 0), by why."""

    values_N: FloatArray
    zero_N: NDArray[np.bool_]
    non_finite_N: NDArray[np.bool_]

    @property
    def num_zero_norm(self) -> int:
        """Records whose centred feature is zero."""
        return int(self.zero_N.sum())

    @property
    def num_non_finite(self) -> int:
        """Records whose feature is not finite."""
        return int(self.non_finite_N.sum())


def redundancy_scores(
    features_ND: RowBlocks,
    *,
    centering: Centering = "corpus",
    groups_N: NDArray[Any] | None = None,
) -> FloatArray:
    """Mean cosine of each record's centred feature to those of the other records.

    Args:
        features_ND: ndarray, np.memmap or any `RowBlocks`, of any floating-point type. float64
            and float32 are computed in float64; narrower types blockwise in float32 with float64
            sums, which changes a score by less than 2e-7.
        centering: "corpus" subtracts the mean feature, "pearson" each feature's own mean, "none"
            nothing.
        groups_N: a label per record; records are centred and scored inside their group
            (`selection.scope: per_source`). None: one group.

    Returns:
        float64 scores. 0 for a record alone in its group, and for a record whose centred feature
        is zero or not finite (a warning counts these).

    Raises:
        UserError: no records, not a matrix of floating-point numbers, or labels of another length.
    """
    result = score_redundancy(features_ND, centering=centering, groups_N=groups_N)
    if result.num_zero_norm or result.num_non_finite:
        logger.warning(
            "%d records have a centred feature of zero, %d a feature that is not finite: score 0",
            result.num_zero_norm,
            result.num_non_finite,
        )
    return result.values_N


def score_redundancy(
    features_UD: RowBlocks,
    *,
    centering: Centering = "corpus",
    groups_N: NDArray[Any] | None = None,
    inverse_N: NDArray[Any] | None = None,
    block_rows: int | None = None,
) -> Redundancy:
    """`redundancy_scores` with diagnostics, and for records that share feature rows.

    Args:
        features_UD: one row per distinct feature.
        centering: as in `redundancy_scores`.
        groups_N: as in `redundancy_scores`.
        inverse_N: the row of each record; records that share a row and a group have bit-equal
            scores. None: record n has row n.
        block_rows: rows read at a time; changes the result by rounding only.

    Raises:
        UserError: as in `redundancy_scores`.
    """
    _check(features_UD, groups_N, inverse_N)
    pairs = pair_rows(features_UD.shape[0], groups_N, inverse_N)
    scan = RedundancyScan(features_UD, pairs, centering, block_rows)
    scan.measure_centres()
    directions_GD = scan.sum_directions()
    scan.project(directions_GD)
    of_records_N = slice(None) if pairs.of_record_N is None else pairs.of_record_N
    return Redundancy(
        values_N=scan.scores_P[of_records_N],
        zero_N=((scan.norms_P == 0) & scan.finite_P)[of_records_N],
        non_finite_N=~scan.finite_P[of_records_N],
    )


def mean_cosine(
    features_UD: RowBlocks, *, centering: Centering, inverse_N: NDArray[Any] | None
) -> float:
    """The mean of the redundancy scores of one group, which is that of all pairs of records.

    With s = sum_j u_j over the n of N records that have a direction it is (s.s - n)/(N (N - 1)), so
    that the pass which projects every record is not needed. Arguments and errors are those of
    `score_redundancy`.
    """
    _check(features_UD, None, inverse_N)
    scan = RedundancyScan(
        features_UD, pair_rows(features_UD.shape[0], None, inverse_N), centering, None
    )
    scan.measure_centres()
    (sum_D,) = scan.sum_directions()
    num_directed = int(scan.pairs.count_P[scan.norms_P > 0].sum())
    num_records = int(scan.pairs.size_G[0])
    return float(sum_D @ sum_D - num_directed) / max(num_records * (num_records - 1), 1)


def _check(
    features_UD: RowBlocks, groups_N: NDArray[Any] | None, inverse_N: NDArray[Any] | None
) -> None:
    shape, dtype = tuple(features_UD.shape), np.dtype(features_UD.dtype)
    if len(shape) != 2:
        raise UserError(f"features: expected a matrix (records, width), got shape {shape}")
    if not np.issubdtype(dtype, np.floating):
        raise UserError(f"features: expected floating-point numbers, got {dtype}")
    num_records = shape[0] if inverse_N is None else len(inverse_N)
    if num_records == 0 or shape[1] == 0:
        raise UserError(f"features: nothing to score: {num_records} records of width {shape[1]}")
    if groups_N is not None and len(groups_N) != num_records:
        raise UserError(f"groups_N: {len(groups_N)} labels for {num_records} records")
