"""The RBF kernel, its bandwidth, and kernel densities from landmarks: O(N m K), not O(N^2 K).

Short rows go in; the mean kernel of each with the other records of its group comes out.

Shape legend: N rows, A and B rows of a block, L landmarks, K components, S sampled rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import default_block_rows, map_spans

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MEDIAN_SHARE = 0.1
"""Of the median squared distance: that distance itself would smooth the whole pool into one."""
SAME = 1e-12
"""A squared distance of two unit vectors that rounding alone can leave."""


def squared_distances(left_AK: FloatArray, right_BK: FloatArray) -> FloatArray:
    """|x_a - y_b|^2, (A, B)."""
    distances_AB = left_AK @ right_BK.T
    distances_AB *= -2
    distances_AB += np.einsum("ak,ak->a", left_AK, left_AK)[:, None]
    distances_AB += np.einsum("bk,bk->b", right_BK, right_BK)
    return np.maximum(distances_AB, 0.0, out=distances_AB)


def evaluate_kernel(left_AK: FloatArray, right_BK: FloatArray, bandwidth: float) -> FloatArray:
    """exp(-|x_a - y_b|^2 / 2h), (A, B)."""
    kernel_AB = squared_distances(left_AK, right_BK)
    kernel_AB *= -0.5 / bandwidth
    return np.exp(kernel_AB, out=kernel_AB)


@dataclass(frozen=True)
class Rbf:
    """The kernel of rows [x; t], image and text: exp(-|x - y|^2 / 2h) ((1 - w) + w k_t).

    k_t is exp(-|t - s|^2 / 2h_t). With w = 0 rows are those of images alone; with w > 0 records of
    one image are as near as their texts are, though never further than 1 - w.

    Attributes:
        bandwidth: h.
        text_weight: w.
        text_bandwidth: h_t.
        num_columns: of an image's row; None: a row has no others.
    """

    bandwidth: float
    text_weight: float = 0.0
    text_bandwidth: float = 1.0
    num_columns: int | None = None

    def __call__(self, left_AK: FloatArray, right_BK: FloatArray) -> FloatArray:
        """(A, B)."""
        of_images = slice(0, self.num_columns)
        kernel_AB = evaluate_kernel(left_AK[:, of_images], right_BK[:, of_images], self.bandwidth)
        if self.text_weight:
            of_texts = slice(self.num_columns, None)
            text_AB = evaluate_kernel(
                left_AK[:, of_texts], right_BK[:, of_texts], self.text_bandwidth
            )
            text_AB *= self.text_weight
            text_AB += 1 - self.text_weight
            kernel_AB *= text_AB
        return kernel_AB

    def narrow(self, bandwidth: float) -> Rbf:
        """The same with another h, and h_t in proportion."""
        share = bandwidth / self.bandwidth
        return replace(self, bandwidth=bandwidth, text_bandwidth=share * self.text_bandwidth)


def choose_bandwidth(sample_SK: FloatArray, rule: Literal["median", "nearest"]) -> float:
    """The bandwidth h of exp(-|x - y|^2 / 2h) by a rule; 1 where all rows are equal.

    "median": a tenth of the median squared distance between two rows. "nearest": the median
    squared distance to the nearest other row. Distances of zero are left out.
    """
    distances_SS = squared_distances(sample_SK, sample_SK)
    distances_SS[distances_SS < SAME] = np.inf
    if rule == "nearest":
        chosen = distances_SS.min(axis=1, initial=np.inf)
    else:
        chosen = MEDIAN_SHARE * distances_SS[np.triu_indices(len(sample_SK), 1)]
    chosen = chosen[np.isfinite(chosen)]
    return float(np.median(chosen)) if len(chosen) else 1.0


def mean_kernel(
    values_NK: FloatArray, counts_N: IntArray, landmarks_L: IntArray, kernel: Rbf
) -> FloatArray:
    """Mean of k(x_i, x_j) over the other records j; 0 for one alone, (N,).

    The records of one's own row are counted, all others estimated by those landmarks that have
    another row: exact where every record is a landmark.

    Args:
        values_NK: the rows.
        counts_N: how many records have each row.
        landmarks_L: the row of each landmark, which is a record; a row as often as it is drawn.
        kernel: k.
    """
    num_records = int(counts_N.sum())
    if num_records < 2:
        return np.zeros(len(values_NK))
    sums_N = sum_kernel(values_NK, values_NK[landmarks_L], None, kernel)
    own_N = np.bincount(landmarks_L, minlength=len(values_NK))
    others_N = np.maximum(sums_N - own_N, 0.0) / np.maximum(len(landmarks_L) - own_N, 1)
    return (counts_N - 1 + (num_records - counts_N) * others_N) / (num_records - 1)


def sum_kernel(
    values_NK: FloatArray, landmarks_LK: FloatArray, weights_L: FloatArray | None, kernel: Rbf
) -> FloatArray:
    """sum_l w_l k(x_i, x_l) of every row, (N,); None: each landmark counts once."""

    def visit(blocks: list[tuple[int, int]]) -> FloatArray:
        return np.concatenate([sum_block(values_NK[a:b]) for a, b in blocks])

    def sum_block(values_BK: FloatArray) -> FloatArray:
        kernel_BL = kernel(values_BK, landmarks_LK)
        sums_B: FloatArray = kernel_BL.sum(axis=1) if weights_L is None else kernel_BL @ weights_L
        return sums_B

    block_rows = default_block_rows(len(landmarks_LK), np.dtype(np.float64))
    return np.concatenate(list(map_spans(visit, len(values_NK), block_rows)))
