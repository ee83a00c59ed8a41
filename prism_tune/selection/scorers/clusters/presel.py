"""PreSel: more of the sources whose questions their answers need, and there the typical images.

Paper: Safaei et al., "Filter Images First, Generate Instructions Later: Pre-Instruction Data
Selection for Visual Instruction Tuning", https://arxiv.org/abs/2503.07591, section 3.
Equation: of a source with records i of a drawn share, r = mean of L(answer | image, question) /
L(answer | image), L the mean of -log p over answer tokens; its quota is in proportion to
softmax(-r / T) over the sources, T = 1 / root of their number. Inside a source: k-means, one
cluster for 100 records, of each the same share; first the most typical, by the mean cosine to the
five nearest of the cluster.
Options: `reference_share` of every source whose losses are measured, `temperature` T (null: the
paper's), `num_neighbors`, `records_per_cluster`.
Published: the losses under the target after a warm-up on that share (`selection.reference`),
features of DINOv2 (`selection.features_file`), without text-only records; the quota, which
`scope: global` takes. With `scope: per_source` every source keeps the
same share.
Ours: features are PRISM's unless given, centred in their source and reduced to 64 components;
quotas by largest remainders, or Webster's where the number of records is not known beforehand
(`quotas.py`), what a source does not have goes to the others.
Cost: forward (PRISM's, and the whole model twice on the share), then k-means.

Shape legend: M records, P pairs of a feature row and a source, G sources, C clusters, K components.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config, Count, Fraction
from prism_tune.errors import UserError
from prism_tune.features.reduction import reduce_features
from prism_tune.features.row_pairs import pair_rows, split_by
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.sample import sample
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.evidence.without import UNASKED_LOSSES
from prism_tune.selection.scorer_options import ScorerOptions, read_options
from prism_tune.selection.scorers.clusters.kmeans import cluster
from prism_tune.selection.scorers.clusters.quotas import rank_by_quota
from prism_tune.selection.scorers.pick_order import rank_picks
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_COMPONENTS = 64
_ITERATIONS = 20
_BLOCK_PAIRS = 1 << 22


class PreselOptions(ScorerOptions):
    """`selection.options` of presel."""

    reference_share: Fraction = 0.05
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="a positive number, or null"
    )
    num_neighbors: Count = 5
    records_per_cluster: Count = 100


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The features; the losses of a share, where sources have quotas."""
    if config.selection.scope == "per_source":
        return (FEATURES,)
    return (FEATURES, *(sample(source, _share) for source in (ANSWER_LOSSES, UNASKED_LOSSES)))


def _share(config: Config) -> float:
    return read_options(config, PreselOptions).reference_share


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0; with `scope: per_source` inside its source."""
    options = read_options(context.config, PreselOptions)
    features_UD, row_M = context.rows()
    pairs = pair_rows(features_UD.shape[0], context.sources_M, row_M)
    reduced = reduce_features(features_UD, pairs, num_components=_COMPONENTS)
    group_M, pair_M = pairs.spread(pairs.group_P), pairs.of_record_N
    assert pair_M is not None
    hashes_M = hash_uids(context.uids)
    by_hash_M = np.argsort(hashes_M, kind="stable")
    orders = []
    for number in range(len(pairs.size_G)):
        at = by_hash_M[group_M[by_hash_M] == number]
        orders.append(at[order_typical(reduced.values_PK, pair_M[at], options, context)])
    unranked = mark_rows(reduced, pairs)
    diagnostics = reduced.diagnostics
    if context.groups_M is not None:
        return rank_picks(len(row_M), orders, diagnostics, unranked)
    names = np.unique(context.sources_M).tolist()
    need_G = measure_need(context, group_M, names)
    temperature = options.temperature or len(names) ** -0.5
    described: dict[str, Any] = {
        **diagnostics,
        "loss_ratios": dict(zip(names, need_G.tolist(), strict=True)),
    }
    by_source = dict(zip(names, orders, strict=True))
    weights_G = weigh_sources(need_G, temperature)
    return rank_by_quota(context, by_source, weights_G, described, unranked)


def measure_need(context: ScoringContext, group_M: IntArray, names: list[str]) -> FloatArray:
    """The r of every source: the mean ratio of the losses with and without the question."""
    asked_M, unasked_M = context.measured["nll"], context.measured["unasked_nll"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios_M = asked_M / unasked_M
    known_M = np.isfinite(ratios_M)
    counts_G = np.bincount(group_M[known_M], minlength=len(names))
    if not counts_G.all():
        lacking = ", ".join(name for name, n in zip(names, counts_G, strict=True) if not n)
        raise UserError(
            f"presel: no record measured of {lacking} has a finite loss, so that its quota is "
            "unknown; a larger selection.options.reference_share or selection.dtype=float32 may "
            "help"
        )
    sums_G = np.bincount(group_M[known_M], ratios_M[known_M], minlength=len(names))
    result: FloatArray = sums_G / counts_G
    return result


def weigh_sources(need_G: FloatArray, temperature: float) -> FloatArray:
    """softmax(-r / T)."""
    weights_G = np.exp(-(need_G - need_G.min()) / temperature)
    result: FloatArray = weights_G / weights_G.sum()
    return result


def order_typical(
    values_PK: FloatArray, pair_B: IntArray, options: PreselOptions, context: ScoringContext
) -> IntArray:
    """The records of a source, of every cluster the most typical first, clusters in turn.

    Args:
        values_PK: unit rows.
        pair_B: each record's row of these, in the order of the uids' hashes.
        options: sizes.
        context: its seed is read.
    """
    distinct, first_B, place_B = np.unique(pair_B, return_index=True, return_inverse=True)
    by_first = np.argsort(first_B)
    rows_BK = values_PK[distinct[by_first]]
    number = max(1, round(len(pair_B) / options.records_per_cluster))
    clusters_B, _ = cluster(rows_BK, number, context.config.seed, _ITERATIONS)
    typical = np.empty(len(rows_BK))
    for members in split_by(clusters_B):
        typical[members] = measure_typicality(rows_BK[members], options.num_neighbors)
    back = np.argsort(by_first)[place_B]  # of each record, its place among the distinct rows
    order_B = np.lexsort((-typical[back], clusters_B[back]))
    within = split_by(clusters_B[back][order_B])
    shares_B = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in within])
    return order_B[np.argsort(shares_B, kind="stable")]


def measure_typicality(rows_nK: FloatArray, num_neighbors: int) -> FloatArray:
    """The mean cosine of each row to its nearest others; 0 for one alone."""
    wanted = min(num_neighbors, len(rows_nK) - 1)
    if wanted == 0:
        return np.zeros(len(rows_nK))
    found = []
    block = max(1, _BLOCK_PAIRS // len(rows_nK))
    for start in range(0, len(rows_nK), block):
        cosines = rows_nK[start : start + block] @ rows_nK.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        found.append(np.partition(cosines, -wanted, axis=1)[:, -wanted:].mean(axis=1))
    return np.concatenate(found)
