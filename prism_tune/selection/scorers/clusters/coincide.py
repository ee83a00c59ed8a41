"""COINCIDE: clusters of a model's concepts, more of those that transfer and are sparse.

Paper: Lee et al., "Concept-skill Transferability-based Data Selection for Large Vision-Language
Models", https://arxiv.org/abs/2406.10995; code: https://github.com/G-JWLee/COINCIDE_code.
Equation: spherical k-means of the rows of `attention_outputs`. Of cluster c, with z the text half
of its centroid: transferability S_c = mean over the centroids j with cos(z_c, z_j) <= cutoff of
that cosine; density D_c = mean of k(x, y) = exp(-|x - y|^2 / 2) over all pairs of its rows, each
with itself included. Clusters in the order of S / D, highest first, get round(what is left of the
budget x softmax(S / (D tau)) over the clusters not served yet), at most their size. Inside a
cluster T grows by the record that minimises mean k(T, T) - 2 mean k(all, T).
Options: `layers` (from 0; null: the paper's 3, 7, 11, 15 and 19 of 24, at the same depth),
`num_clusters` (null: one for 66 records, the paper's 10,000 of 665K), `tau`, `transfer_cutoff`.
Published: a tuned TinyLLaVA-2B reads the records (`selection.reference`), one cut through the whole
pool, text-only records among the rest with a blank image (preset:published/coincide).
Ours: rows are projected (`attention_outputs.py`), and once more to 256 components before anything
is measured; the blank image stands before the first question (in the code there is no token for it,
so that its image half is text); a round that leaves budget over is repeated over the clusters with
room; with `scope: per_source` each source has clusters and a quota of its own. Only the largest of
several budgets is cut exactly by the quotas; a smaller one takes each cluster's first, in
proportion. A budget that does not say how many records share the clusters is refused: tokens, or
`source_budgets` with `scope: global`.
Cost: forward (to 80 % of the depth, once per distinct record), k-means in 50 rounds of
N x clusters x K, and N x the mean size of a cluster.

Shape legend: M records, B records of a group, C clusters, n records of a cluster, K components.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count
from prism_tune.features.row_blocks import RowBlocks, unit_rows
from prism_tune.features.row_pairs import pair_rows, split_by
from prism_tune.selection.evidence.states.attention_outputs import (
    ATTENTION_OUTPUTS,
    AttentionOptions,
)
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.clusters.kmeans import cluster, shorten
from prism_tune.selection.scorers.pick_order import rank_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.subset import hash_uids

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_RECORDS_PER_CLUSTER = 66
_ITERATIONS = 50
_BLOCK_PAIRS = 1 << 22


class CoincideOptions(AttentionOptions):
    """`selection.options` of coincide."""

    num_clusters: Count | None = Field(default=None, description="a positive number, or null")
    tau: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    transfer_cutoff: Annotated[float, Field(ge=-1, le=1)] = 0.9


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0, inside its group; the rest share the next one."""
    options = read_options(context.config, CoincideOptions)
    values_UD, row_M = context.more_rows[ATTENTION_OUTPUTS.name]
    rows_UK = shorten(values_UD, row_M)
    hashes_M = hash_uids(context.uids)
    pairs = pair_rows(len(row_M), context.groups_M, np.arange(len(row_M)))
    wanted_G = context.most_taken(pairs.size_G)
    num_clusters = options.num_clusters or max(1, round(len(row_M) / _RECORDS_PER_CLUSTER))
    picks, found = [], 0
    for members, wanted in zip(pairs.members(), wanted_G.tolist(), strict=True):
        at = members[np.argsort(hashes_M[members], kind="stable")]
        share = max(1, round(num_clusters * len(at) / len(row_M)))
        clusters_B, _ = cluster(rows_UK[row_M[at]], share, context.config.seed, _ITERATIONS)
        clusters = split_by(clusters_B)
        texts_CD = mean_texts(values_UD, row_M[at], clusters)
        transfer_C = transferability(texts_CD, options.transfer_cutoff)
        chosen = pick_clusters(rows_UK[row_M[at]], clusters, transfer_C, wanted, options.tau)
        picks.append(at[chosen])
        found += len(clusters)
    diagnostics: dict[str, Any] = {"num_clusters": found, "num_components": rows_UK.shape[1]}
    return rank_picks(len(row_M), picks, diagnostics, {})


def mean_texts(values_UD: RowBlocks, row_B: IntArray, clusters: list[IntArray]) -> FloatArray:
    """The text half of each cluster's mean row, (C, D / 2)."""
    num_rows, width = values_UD.shape
    cluster_B = np.empty(len(row_B), dtype=np.int64)
    for number, members in enumerate(clusters):
        cluster_B[members] = number
    order_B = np.argsort(row_B, kind="stable")
    sums_CD = np.zeros((len(clusters), width - width // 2))
    block = max(1, _BLOCK_PAIRS // width)
    for start in range(0, num_rows, block):
        first, last = np.searchsorted(row_B[order_B], [start, start + block])
        at = order_B[first:last]
        texts = np.asarray(values_UD[slice(start, start + block)], np.float64)[:, width // 2 :]
        np.add.at(sums_CD, cluster_B[at], texts[row_B[at] - start])
    return sums_CD / np.array([len(members) for members in clusters])[:, None]


def transferability(texts_CD: FloatArray, cutoff: float) -> FloatArray:
    """S of each cluster; 0 where every other one is nearer than the cutoff."""
    unit_CD = unit_rows(texts_CD)
    found = []
    block = max(1, _BLOCK_PAIRS // len(unit_CD))
    for start in range(0, len(unit_CD), block):
        found.append(mean_below(unit_CD[start : start + block] @ unit_CD.T, cutoff))
    return np.concatenate(found)


def mean_below(cosines: FloatArray, cutoff: float) -> FloatArray:
    """The mean of each row's values up to the cutoff; 0 where there is none."""
    counts = cosines <= cutoff
    sums = np.where(counts, cosines, 0.0).sum(axis=1)
    result: FloatArray = sums / np.maximum(counts.sum(axis=1), 1)
    return result


def pick_clusters(
    rows_BK: FloatArray, clusters: list[IntArray], transfer_C: FloatArray, wanted: int, tau: float
) -> IntArray:
    """The kept rows: each cluster's quota, the first of all clusters first, by shares of quotas."""
    kernel_means = [mean_kernels(rows_BK[members]) for members in clusters]
    density_C = np.array([means_n.mean() for means_n in kernel_means])
    sizes_C = np.array([len(members) for members in clusters])
    quota_C = share_out(wanted, transfer_C / density_C, sizes_C, tau)
    chosen, shares = [], []
    for members, means_n, quota in zip(clusters, kernel_means, quota_C.tolist(), strict=True):
        picked = pick_representatives(rows_BK[members], means_n, quota)
        chosen.append(members[picked])
        shares.append((np.arange(quota) + 0.5) / max(quota, 1))
    order = np.argsort(np.concatenate(shares), kind="stable")
    result: IntArray = np.concatenate(chosen)[order]
    return result


def share_out(wanted: int, scores_C: FloatArray, sizes_C: IntArray, tau: float) -> IntArray:
    """How many of each cluster, `wanted` in all (or every record).

    Worked example: scores .625, .8 and .333, sizes 10, 3 and 20, 12 wanted, tau 0.1: the second
    would get 10 and has 3; of the 9 left the first gets 9; nothing is left for the third.
    """
    quota_C = np.zeros(len(scores_C), dtype=np.int64)
    left = min(wanted, int(sizes_C.sum()))
    order = np.argsort(-scores_C, kind="stable")
    while left:
        order = order[quota_C[order] < sizes_C[order]]
        logits = scores_C[order] / tau
        behind = np.logaddexp.accumulate(logits[::-1])[::-1]
        for number, share in zip(order.tolist(), np.exp(logits - behind).tolist(), strict=True):
            more = min(round(left * share), int(sizes_C[number] - quota_C[number]))
            quota_C[number] += more
            left -= more
    return quota_C


def mean_kernels(rows_nK: FloatArray) -> FloatArray:
    """The mean kernel of each row with all rows of its cluster, itself included."""
    block = max(1, _BLOCK_PAIRS // len(rows_nK))
    return np.concatenate(
        [
            kernel(rows_nK[start : start + block], rows_nK).mean(axis=1)
            for start in range(0, len(rows_nK), block)
        ]
    )


def pick_representatives(rows_nK: FloatArray, means_n: FloatArray, num_picks: int) -> IntArray:
    """Rows that grow into a set like the whole; of equals the first.

    Args:
        rows_nK: of the cluster.
        means_n: of the kernel, as `mean_kernels` gives them.
        num_picks: how many.
    """
    with_kept_n, kept, kept_pairs, kept_means = np.zeros(len(rows_nK)), [], 0.0, 0.0
    free_n = np.ones(len(rows_nK), dtype=bool)
    for size in range(1, num_picks + 1):
        within_n = (kept_pairs + 2 * with_kept_n + 1.0) / size**2
        distance_n = within_n - 2 * (kept_means + means_n) / size
        chosen = int(np.argmin(np.where(free_n, distance_n, np.inf)))
        kept.append(chosen)
        free_n[chosen] = False
        kept_pairs += 2 * with_kept_n[chosen] + 1.0
        kept_means += means_n[chosen]
        with_kept_n += kernel(rows_nK[chosen : chosen + 1], rows_nK)[0]
    return np.array(kept, dtype=np.int64)


def kernel(ones_mK: FloatArray, others_nK: FloatArray) -> FloatArray:
    """exp(-|x - y|^2 / 2) of every pair, (m, n)."""
    squares = (ones_mK**2).sum(axis=1)[:, None] + (others_nK**2).sum(axis=1)
    squares -= 2 * ones_mK @ others_nK.T
    result: FloatArray = np.exp(-np.maximum(squares, 0.0) / 2)
    return result
