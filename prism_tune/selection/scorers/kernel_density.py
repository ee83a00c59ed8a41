"""Kernel densities by random Fourier features: O(N M) instead of O(N^2).

Short rows go in; the mean RBF kernel of each with the others comes out, by the identity
sum_{j != i} f_i.f_j = f_i . (sum_j f_j) - |f_i|^2, which is exact for the features f.

Shape legend: N rows, B rows of a block, D feature width, K components, M frequencies, F = 2 M
random features, S sampled rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import default_block_rows, map_spans

FloatArray = NDArray[np.float64]

MEDIAN_SHARE = 0.1
"""Of the median squared distance: that distance itself would smooth the whole pool into one."""


def choose_bandwidth(sample_SK: FloatArray, rule: Literal["median", "nearest"]) -> float:
    """The bandwidth h of exp(-|x - y|^2 / 2h) by a rule; 1 where all rows are equal.

    "median": a tenth of the median squared distance between two rows. "nearest": the median
    squared distance to the nearest other row. Distances of zero are left out.
    """
    squared_norms_S = (sample_SK**2).sum(axis=1)
    distances_SS = squared_norms_S[:, None] + squared_norms_S - 2 * sample_SK @ sample_SK.T
    distances_SS[distances_SS < 1e-12] = np.inf
    if rule == "nearest":
        chosen = distances_SS.min(axis=1, initial=np.inf)
    else:
        chosen = MEDIAN_SHARE * distances_SS[np.triu_indices(len(sample_SK), 1)]
    chosen = chosen[np.isfinite(chosen)]
    return float(np.median(chosen)) if len(chosen) else 1.0


def draw_frequencies(
    basis_DK: FloatArray, num_frequencies: int, bandwidth: float, seed: int
) -> FloatArray:
    """Frequencies of the kernel's spectrum, N(0, 1/h) in each component.

    Drawn in the width of the features and turned into the components, so that the sign and the
    rotation of the eigenvectors, which rounding decides, do not change the densities.
    """
    rng = np.random.default_rng(seed)
    wide_DM = rng.standard_normal((basis_DK.shape[0], num_frequencies))
    directions_DK = basis_DK / np.linalg.norm(basis_DK, axis=0)  # whitening scales them
    return directions_DK.T @ wide_DM / np.sqrt(bandwidth)


class KernelFeatures:
    """f(x) = [cos(W x), sin(W x)] / sqrt(M) of all rows, computed block by block when asked.

    Args:
        values_NK: the rows.
        frequencies_KM: of the kernel.
    """

    def __init__(self, values_NK: FloatArray, frequencies_KM: FloatArray) -> None:
        self._values_NK = values_NK
        self._frequencies_KM = frequencies_KM
        self._block_rows = default_block_rows(2 * frequencies_KM.shape[1], np.dtype(np.float64))

    def __len__(self) -> int:
        return len(self._values_NK)

    def add_up(self, weights_N: NDArray[np.int64]) -> FloatArray:
        """sum_j w_j f_j."""

        def visit(blocks: list[tuple[int, int]]) -> FloatArray:
            return np.sum([weights_N[a:b] @ self._block(a, b) for a, b in blocks], axis=0)

        return np.sum(list(map_spans(visit, len(self._values_NK), self._block_rows)), axis=0)

    def compare(self, sum_F: FloatArray) -> FloatArray:
        """f_i . sum_F for every row."""

        def visit(blocks: list[tuple[int, int]]) -> FloatArray:
            return np.concatenate([self._block(a, b) @ sum_F for a, b in blocks])

        return np.concatenate(list(map_spans(visit, len(self._values_NK), self._block_rows)))

    def _block(self, start: int, stop: int) -> FloatArray:
        phases_BM = self._values_NK[start:stop] @ self._frequencies_KM
        scale = 1 / np.sqrt(self._frequencies_KM.shape[1])
        return np.concatenate([np.cos(phases_BM), np.sin(phases_BM)], axis=1) * scale


def mean_kernel(
    values_NK: FloatArray, counts_N: NDArray[np.int64], frequencies_KM: FloatArray
) -> FloatArray:
    """Approximate mean of exp(-|x_i - x_j|^2 / 2h) over the other records j; 0 for one alone.

    Args:
        values_NK: the rows.
        counts_N: how many records have each row; these are each other's neighbours too.
        frequencies_KM: of the kernel.
    """
    num_others = int(counts_N.sum()) - 1
    if num_others < 1:
        return np.zeros(len(values_NK))
    features = KernelFeatures(values_NK, frequencies_KM)
    # |f_i|^2 is 1: cos^2 + sin^2 over M frequencies.
    return (features.compare(features.add_up(counts_N)) - 1) / num_others
