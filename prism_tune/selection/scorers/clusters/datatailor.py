"""DataTailor: informative, unique and representative records, and a quota for each source.

Paper: Yu et al., "Mastering Collaborative Multi-modal Data Selection", DataTailor,
https://arxiv.org/abs/2412.06293; code: https://github.com/Yuqifan1117/DataTailor.
Equation: of record i, Inf_i = -sum p ln p and x_i = max p, p the shares of the singular values of
its states behind the last layer, and the point q_i, its last token's state (`state_spectra.py`).
The points of a source fall into clusters: Ward's, cut at a tenth of the last merge's height. Inside
its cluster of n points, Uni_i = sum_j |q_i - q_j| Inf_j / (sum of all distances / n); Rep_i = Inf_i
x the mean over the source's other clusters of exp(cosine of the clusters' mean points). In each
source each value becomes its rank / n, from 0; with T the record's questions and answers,
V = (T Inf + Uni + Rep) / (T + 2). Highest V first.
Quota: of a source with n records and mean share x, in proportion to n x^2.
Published: the target before tuning; the quota, which `scope: global` takes, and text-only records
as a source like any other (preset:published/datatailor). With `scope: per_source` every source
keeps the same share.
Ours: where a source has more than 3,000 records, Ward's clusters are those of 3,000 centroids of
k-means, so that no N x N matrix is there; points are projected to 256 components; quotas by
largest remainders (the code rounds them down), or Webster's where the number of records is not
known beforehand (`quotas.py`), what a source does not have goes to the others; of
one cluster alone Rep = Inf, of equal points Uni = their mean Inf; equal values share their mean
rank.
Cost: forward (the whole model, once per distinct record, and an L x L eigenvalue problem for each),
k-means in N x 3,000 x K, distances in N x the mean size of a cluster.

Shape legend: M records, B records of a source, C clusters, n records of a cluster, K components.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import RowBlocks, unit_rows
from prism_tune.features.row_pairs import pair_rows, split_by
from prism_tune.selection.evidence.states.state_spectra import STATE_SPECTRA
from prism_tune.selection.scorers.clusters.kmeans import cluster, shorten
from prism_tune.selection.scorers.clusters.quotas import rank_by_quota
from prism_tune.selection.scorers.pick_order import mean_ranks, rank_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.subset import hash_uids

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_POINTS = 3000
"""Of Ward's clusters; more points are first brought down to so many centroids."""

_CUT_HEIGHT = 0.1
_ITERATIONS = 20
_BLOCK_ROWS = 1 << 16
_BLOCK_PAIRS = 1 << 22
_ROUNDING = 1e-13  # of squared lengths: what equal points differ by


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0; with `scope: per_source` inside its source."""
    values_UD, row_M = context.more_rows[STATE_SPECTRA.name]
    information_M, top_M = read_numbers(values_UD).T[:, row_M]
    points_UK = shorten(values_UD, row_M, slice(2, None))
    records = (context.pool[index] for index in context.records_M.tolist())
    asked_M = np.array([len(record.turns) // 2 for record in records])
    hashes_M = hash_uids(context.uids)
    pairs = pair_rows(len(row_M), context.sources_M, np.arange(len(row_M)))
    orders, weights = [], []
    for members in pairs.members():
        at = members[np.argsort(hashes_M[members], kind="stable")]
        values_B = value_records(
            information_M[at], points_UK[row_M[at]], asked_M[at], context.config.seed
        )
        orders.append(at[np.argsort(-values_B, kind="stable")])
        weights.append(len(at) * float(top_M[at].mean()) ** 2)
    diagnostics: dict[str, Any] = {"mean_information": float(information_M.mean())}
    if context.groups_M is not None:
        return rank_picks(len(row_M), orders, diagnostics, {})
    by_source = dict(zip(np.unique(context.sources_M).tolist(), orders, strict=True))
    return rank_by_quota(context, by_source, np.array(weights), diagnostics, {})


def read_numbers(values_UD: RowBlocks) -> FloatArray:
    """Entropy and largest share of every row, (U, 2)."""
    starts = range(0, values_UD.shape[0], _BLOCK_ROWS)
    blocks = [np.asarray(values_UD[slice(a, a + _BLOCK_ROWS)])[:, :2] for a in starts]
    return np.concatenate(blocks).astype(np.float64)


def value_records(
    information_B: FloatArray, points_BK: FloatArray, asked_B: IntArray, seed: int
) -> FloatArray:
    """V of the records of one source.

    Args:
        information_B: Inf of each.
        points_BK: the last token's state of each.
        asked_B: how many questions each has.
        seed: of k-means, where there are many.
    """
    clusters = cluster_points(points_BK, seed)
    unique_B = np.empty(len(information_B))
    for members in clusters:
        unique_B[members] = measure_uniqueness(points_BK[members], information_B[members])
    near_C = compare_clusters(np.array([points_BK[members].mean(axis=0) for members in clusters]))
    typical_B = np.empty(len(information_B))
    for members, near in zip(clusters, near_C.tolist(), strict=True):
        typical_B[members] = information_B[members] * near
    ranks = [mean_ranks(b) / len(b) for b in (information_B, unique_B, typical_B)]
    result: FloatArray = (asked_B * ranks[0] + ranks[1] + ranks[2]) / (asked_B + 2)
    return result


def cluster_points(points_BK: FloatArray, seed: int) -> list[IntArray]:
    """Ward's clusters, cut at a tenth of the last merge's height."""
    from scipy.cluster.hierarchy import fcluster, linkage  # here: loaded only where it is used

    if len(points_BK) == 1:
        return [np.zeros(1, dtype=np.int64)]
    centroids = np.arange(len(points_BK))
    means = points_BK
    if len(points_BK) > MOST_POINTS:
        found_B, _ = cluster(points_BK, MOST_POINTS, seed, _ITERATIONS, spherical=False)
        parts = split_by(found_B)
        means = np.array([points_BK[part].mean(axis=0) for part in parts])
        for number, part in enumerate(parts):
            centroids[part] = number
    if len(means) == 1:
        return [np.arange(len(points_BK))]
    tree = linkage(means, "ward")
    labels = fcluster(tree, _CUT_HEIGHT * tree[-1, 2], criterion="distance")
    return split_by(labels[centroids])


def measure_uniqueness(points_nK: FloatArray, information_n: FloatArray) -> FloatArray:
    """Uni of the records of one cluster; their mean Inf where all points are equal."""
    weighted, total = [], 0.0
    block = max(1, _BLOCK_PAIRS // len(points_nK))
    squares_n = (points_nK**2).sum(axis=1)
    for start in range(0, len(points_nK), block):
        at = slice(start, start + block)
        sums = squares_n[at, None] + squares_n
        apart = sums - 2 * points_nK[at] @ points_nK.T
        apart[apart < _ROUNDING * sums] = 0.0
        distances = np.sqrt(apart)
        weighted.append(distances @ information_n)
        total += float(distances.sum())
    if total == 0:
        return np.full(len(points_nK), information_n.mean())
    return np.concatenate(weighted) / (total / len(points_nK))


def compare_clusters(means_CK: FloatArray) -> FloatArray:
    """The mean over the other clusters of exp(cosine) of each; 1 for one alone."""
    if len(means_CK) == 1:
        return np.ones(1)
    unit_CK = unit_rows(means_CK)
    near_CC = np.exp(unit_CK @ unit_CK.T)
    np.fill_diagonal(near_CC, 0.0)
    result: FloatArray = near_CC.sum(axis=1) / (len(means_CK) - 1)
    return result
