"""Rows made short, and spherical k-means of them (faiss).

Shape legend: U evidence rows, M records, D width of a row, K components, B rows of a group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.reduction import add_products
from prism_tune.features.row_blocks import RowBlocks, default_block_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_COMPONENTS = 256
"""What rows are projected to before they are clustered: k-means takes N clusters K operations."""


def shorten(values_UD: RowBlocks, row_M: IntArray, components: slice = slice(None)) -> FloatArray:
    """The rows in the leading `MOST_COMPONENTS` directions of their second moment, (U, K).

    Not centred, so that inner products stay what they are as far as so many directions tell; as
    they are where they are no wider. A row that is not finite becomes zero.

    Args:
        values_UD: in blocks; the memory is D^2 and U K numbers.
        row_M: each record's row; a row counts as often as it is one.
        components: which of the D columns.
    """
    num_rows = values_UD.shape[0]
    width = len(range(*components.indices(values_UD.shape[1])))
    counts_U = np.bincount(row_M, minlength=num_rows).astype(np.float64)
    block_rows = max(1, 16 * default_block_rows(width, np.dtype(np.float64)))
    starts = range(0, num_rows, block_rows)

    def read(start: int) -> FloatArray:
        block_BD = np.asarray(values_UD[slice(start, start + block_rows)], dtype=np.float64)
        block_BD = block_BD[:, components]
        return np.where(np.isfinite(block_BD).all(axis=1, keepdims=True), block_BD, 0.0)

    if width <= MOST_COMPONENTS:
        return np.concatenate([read(start) for start in starts])
    moment_DD = np.zeros((width, width))
    for start in starts:
        block_BD = read(start)
        weights_B = counts_U[start : start + len(block_BD)]
        add_products(moment_DD, block_BD * weights_B[:, None], block_BD)
    basis_DK = np.linalg.eigh(moment_DD)[1][:, ::-1][:, :MOST_COMPONENTS]
    return np.concatenate([read(start) @ basis_DK for start in starts])


def cluster(
    rows_BK: FloatArray, num_clusters: int, seed: int, iterations: int, *, spherical: bool = True
) -> tuple[IntArray, FloatArray]:
    """Each row's cluster, and its cosine to that cluster's centroid, by spherical k-means.

    Not `spherical`: by k-means, and minus its squared distance.
    """
    import faiss  # here: loaded only where it is used

    if rows_BK.shape[1] == 0:  # all features are equal; faiss would abort the process
        return np.zeros(len(rows_BK), dtype=np.int64), np.zeros(len(rows_BK))
    num_clusters = min(num_clusters, len(rows_BK))
    rows32_BK = np.ascontiguousarray(rows_BK, dtype=np.float32)
    kmeans = faiss.Kmeans(
        rows_BK.shape[1],
        num_clusters,
        niter=iterations,
        seed=seed % 2**31,
        spherical=spherical,
        min_points_per_centroid=1,
    )
    kmeans.train(rows32_BK)
    near_B1, clusters_B1 = kmeans.index.search(rows32_BK, 1)
    near_B = near_B1[:, 0].astype(np.float64)
    return clusters_B1[:, 0].astype(np.int64), near_B if spherical else -near_B
