"""SemDeDup: within-cluster near-duplicates.

Paper: Abbas et al., "SemDeDup: Data-efficient learning at web-scale through semantic
deduplication", https://arxiv.org/abs/2303.09540, section 3.
Equation: k-means of the unit features z; in each cluster, from the record farthest from the
centroid inwards, m_i = max z_i.z_j over the records j before i. The paper drops i where
m_i > 1 - epsilon. Score = m_i (-1 for the first): keeping the lowest is the paper's rule at the
epsilon that meets the budget, which is how it sets epsilon.
Option `threshold` t fixes 1 - epsilon instead: records with m_i <= t come first, in random order
(a hash of uid and seed: score u_i - 1 in [-1, 0)), then duplicates by m_i (score m_i + 1).
Ours: features are PRISM's, centred and PCA-reduced; the number of clusters (the root of the number
of distinct features, over all groups); inside each source with `scope: per_source`; records that
share a feature are duplicates of the first of them (m = 1).
Cost: forward (PRISM's), then k-means O(iterations N clusters K) and O(N K) times the mean cluster
size.

Shape legend: M records, P pairs of a feature row and a group, B pairs of a group, C clusters,
K components.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count
from prism_tune.features.reduction import reduce_features
from prism_tune.features.row_pairs import split_by
from prism_tune.selection.scorer_options import ScorerOptions, read_options
from prism_tune.selection.scorers.clusters.kmeans import cluster
from prism_tune.selection.scorers.pick_order import first_records
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids

FloatArray = NDArray[np.float64]

_ITERATIONS = 20
_BLOCK_ROWS = 1024


class SemDeDupOptions(ScorerOptions):
    """`selection.options` of semdedup; null: all components, root-N clusters, no threshold."""

    num_components: Count | None = Field(default=64, description="a positive number, or null")
    num_clusters: Count | None = Field(default=None, description="a positive number, or null")
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None, description="a cosine from -1 to 1, or null"
    )


def score(context: ScoringContext) -> ScoredRecords:
    """The largest cosine of every record to one that its cluster keeps before it."""
    options = read_options(context.config, SemDeDupOptions)
    features_UD, pairs = context.paired_rows()
    reduced = reduce_features(features_UD, pairs, num_components=options.num_components)
    uids, hashes_M = context.uids, hash_uids(context.uids)
    first_P = first_records(pairs, hashes_M)
    num_clusters = options.num_clusters or round(len(first_P) ** 0.5)
    similar_M = np.ones(len(uids))
    for members in pairs.members():
        at = members[np.argsort(hashes_M[first_P[members]], kind="stable")]
        share = max(1, round(num_clusters * len(at) / len(first_P)))
        rows_BK = reduced.values_PK[at]
        clusters_B, inward_B = cluster(rows_BK, share, context.config.seed, _ITERATIONS)
        similar_M[first_P[at]] = find_duplicates(rows_BK, clusters_B, inward_B)
    diagnostics = {**reduced.diagnostics, "num_clusters": num_clusters}
    unranked = mark_rows(reduced, pairs)
    if options.threshold is None:
        return ScoredRecords(similar_M, diagnostics, unranked)
    duplicate_M = similar_M > options.threshold
    random_M = hash_uids(uids, context.config.seed).astype(np.float64) / 2.0**64
    values_M = np.where(duplicate_M, similar_M + 1.0, random_M - 1.0)
    diagnostics["num_duplicates"] = int(duplicate_M.sum())
    return ScoredRecords(values_M, diagnostics, unranked)


def find_duplicates(
    rows_BK: FloatArray, clusters_B: NDArray[np.int64], inward_B: FloatArray
) -> FloatArray:
    """The largest cosine of each row to a row before it in its cluster; -1 for the first.

    Args:
        rows_BK: rows of norm 1 (or 0).
        clusters_B: the cluster of each.
        inward_B: its cosine to the centroid; the lowest comes first.
    """
    similar_B = np.full(len(rows_BK), -1.0)
    for members in split_by(clusters_B, np.argsort(inward_B, kind="stable")):
        for start in range(0, len(members), _BLOCK_ROWS):
            block = members[start : start + _BLOCK_ROWS]
            before = members[: start + len(block)]
            cosines = rows_BK[block] @ rows_BK[before].T
            later = np.arange(len(before)) >= np.arange(start, start + len(block))[:, None]
            cosines[later] = -1.0
            similar_B[block] = cosines.max(axis=1).clip(-1.0, 1.0)
    return similar_B
