"""Features reduced to their principal components, streaming: two passes, no N x N, no SVD of rows.

A feature matrix goes in; one short centred row per (feature row, group) comes out. The first pass
adds up the D x D covariance, the second projects. The components are those of the whole pool, the
centre is the group's own: with `scope: per_source` a source is compared with itself in directions
that all sources share (ours; a basis per source would need a D x D matrix for each).

Memory: the D x D covariance and P x K numbers, in float64. Records that share a row count as often
as they occur. Time: O(U D^2) and O(U D K).

Shape legend: U feature rows, B rows of a block, P pairs of a row and a group, D feature width,
K components, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import UserError
from prism_tune.features.row_blocks import RowBlocks, default_block_rows, rounding_share, widen
from prism_tune.features.row_pairs import RowPairs

FloatArray = NDArray[np.float64]

_BLOCK_BYTES = 64 << 20  # large enough for the matrix product to be what takes the time
_RELATIVE_RANK = 1e-10  # a direction with less than this share of the largest variance is rounding
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of the mean: what equal features differ by
_RELATIVE_ZERO = 1e-9  # so is a centred row this much shorter than its longest
_STRIP = 512  # columns; wide enough for a matrix product at full speed


@dataclass(frozen=True)
class ReducedFeatures:
    """Centred rows in K components, and how many *records* have none to speak of (a row of zeros).

    `basis_DK` maps a centred feature to a row, whitening included; its columns are eigenvectors of
    the covariance, whose sign (and rotation, where eigenvalues repeat) means nothing. `zero_P` and
    `non_finite_P` are the rows of zeros, by why they are.
    """

    values_PK: FloatArray
    basis_DK: FloatArray
    num_zero_norm: int
    num_non_finite: int
    zero_P: NDArray[np.bool_]
    non_finite_P: NDArray[np.bool_]

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What the manifest says."""
        return {
            "num_components": self.basis_DK.shape[1],
            "num_zero_norm": self.num_zero_norm,
            "num_non_finite": self.num_non_finite,
        }


def reduce_features(
    features_UD: RowBlocks,
    pairs: RowPairs,
    *,
    num_components: int | None,
    whitening: bool = False,
    normalise: bool = True,
) -> ReducedFeatures:
    """Project on the leading principal components, centre inside each group, normalise.

    Args:
        features_UD: one row per distinct feature.
        pairs: which records share which rows and groups.
        num_components: how many to keep at most; None keeps every direction that varies.
        whitening: divide each component by its standard deviation over the pool.
        normalise: make each row a unit vector.

    Raises:
        UserError: not a matrix of floating-point numbers with at least one finite row.
    """
    _require_numbers(features_UD)
    counts_U = np.bincount(pairs.row_P, pairs.count_P, minlength=features_UD.shape[0])
    mean_D, covariance_DD, finite_U = measure_covariance(features_UD, counts_U.astype(np.float64))
    noise_variance = (_ROUNDING * float(np.linalg.norm(mean_D))) ** 2
    basis_DK = find_directions(covariance_DD, noise_variance, num_components, whitening)
    rows_UK = np.zeros((features_UD.shape[0], basis_DK.shape[1]))
    for start, block_BD in read_blocks(features_UD):
        finite_B = finite_U[start : start + len(block_BD)]
        rows_UK[start : start + len(block_BD)][finite_B] = (block_BD[finite_B] - mean_D) @ basis_DK
    values_PK, finite_P = rows_UK[pairs.row_P], finite_U[pairs.row_P]
    _centre_groups(values_PK, finite_P, pairs)
    norms_P = np.linalg.norm(values_PK, axis=1)
    lengths_P = norms_P
    if whitening:
        lengths_P = np.linalg.norm(values_PK / np.linalg.norm(basis_DK, axis=0), axis=1)
    noise = rounding_share(np.dtype(features_UD.dtype)) * float(np.linalg.norm(mean_D))
    zero_P = (norms_P <= _RELATIVE_ZERO * norms_P.max(initial=0.0)) | (lengths_P <= noise)
    values_PK[zero_P] = 0.0
    if normalise:
        values_PK /= np.where(zero_P, 1.0, norms_P)[:, None]
    return ReducedFeatures(
        values_PK,
        basis_DK,
        num_zero_norm=int(pairs.count_P[zero_P & finite_P].sum()),
        num_non_finite=int(pairs.count_P[~finite_P].sum()),
        zero_P=zero_P & finite_P,
        non_finite_P=~finite_P,
    )


def find_finite(features_UD: RowBlocks) -> NDArray[np.bool_]:
    """Which rows have finite numbers alone, (U,).

    Raises:
        UserError: not a matrix of floating-point numbers.
    """
    _require_numbers(features_UD)
    finite_U = np.zeros(features_UD.shape[0], dtype=bool)
    block_rows = default_block_rows(features_UD.shape[1], features_UD.dtype)
    for start in range(0, len(finite_U), block_rows):
        at = slice(start, start + block_rows)
        finite_U[at] = np.isfinite(np.asarray(features_UD[at])).all(axis=1)
    return finite_U


def _require_numbers(features_UD: RowBlocks) -> None:
    if len(features_UD.shape) != 2 or not np.issubdtype(features_UD.dtype, np.floating):
        raise UserError(
            "features: expected a matrix of floating-point numbers, got "
            f"{features_UD.dtype} of shape {tuple(features_UD.shape)}"
        )


def add_products(sum_DD: FloatArray, left_BD: FloatArray, right_BD: FloatArray) -> None:
    """Add left^T right, in place, as far as it lies on or below the diagonal.

    Where the result is symmetric this is all of it for half the arithmetic; `np.linalg.eigh` reads
    no more. (X.T @ X, of which NumPy makes OpenBLAS's `syrk`, would do as much, but that crashes on
    wide matrices: numpy issue 19685.)
    """
    for start in range(0, len(sum_DD), _STRIP):
        stop = start + _STRIP
        sum_DD[start:stop, :stop] += left_BD[:, start:stop].T @ right_BD[:, :stop]


def read_blocks(features_UD: RowBlocks) -> Iterator[tuple[int, FloatArray]]:
    """The first row of each block, and the block in float64."""
    num_rows, width = features_UD.shape
    block_rows = max(1, _BLOCK_BYTES // (8 * max(1, width)))
    for start in range(0, num_rows, block_rows):
        block = np.asarray(features_UD[start : start + block_rows])
        yield start, widen(block, np.dtype(np.float64))


def measure_covariance(
    features_UD: RowBlocks, weights_U: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Weighted mean, lower triangle of the covariance of the finite rows, and which these are."""
    num_rows, width = features_UD.shape
    finite_U = np.zeros(num_rows, dtype=bool)
    offset_D: FloatArray | None = None  # near the mean: else the sums of squares lose digits
    sum_D, products_DD, total = np.zeros(width), np.zeros((width, width)), 0.0
    for start, block_BD in read_blocks(features_UD):
        at = slice(start, start + len(block_BD))
        finite_U[at] = np.isfinite(block_BD).all(axis=1)
        rows_BD, weights_B = block_BD[finite_U[at]], weights_U[at][finite_U[at]]
        if len(rows_BD) == 0:
            continue
        offset_D = rows_BD.mean(axis=0) if offset_D is None else offset_D
        rows_BD = rows_BD - offset_D
        weighted_BD = rows_BD * weights_B[:, None]
        sum_D += weighted_BD.sum(axis=0)
        add_products(products_DD, weighted_BD, rows_BD)
        total += float(weights_B.sum())
    if offset_D is None or total == 0:
        raise UserError("features: no record has a finite feature; nothing to score")
    shift_D = sum_D / total
    return offset_D + shift_D, products_DD / total - np.outer(shift_D, shift_D), finite_U


def find_directions(
    covariance_DD: FloatArray, noise: float, num_components: int | None, whitening: bool
) -> FloatArray:
    """The leading eigenvectors of a covariance, (D, K), of variances above the noise."""
    variances_D, vectors_DD = np.linalg.eigh(covariance_DD)
    varies_D = variances_D > max(noise, _RELATIVE_RANK * variances_D[-1])
    leading = np.flatnonzero(varies_D)[::-1][:num_components]
    basis_DK = vectors_DD[:, leading]
    return basis_DK / np.sqrt(variances_D[leading]) if whitening else basis_DK


def _centre_groups(values_PK: FloatArray, finite_P: NDArray[np.bool_], pairs: RowPairs) -> None:
    """Subtract each group's mean, in place; rows that are not finite become zero."""
    for members in pairs.members():
        at = members[finite_P[members]]
        if len(at):
            values_PK[at] -= np.average(values_PK[at], axis=0, weights=pairs.count_P[at])
    values_PK[~finite_P] = 0.0
