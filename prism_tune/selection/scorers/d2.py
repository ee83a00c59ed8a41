"""D2 Pruning: difficulty and diversity, by messages on a graph of nearest neighbours.

Paper: Maharana, Yadav and Bansal, "D2 Pruning: Message Passing for Balancing Diversity and
Difficulty in Data Pruning", https://arxiv.org/abs/2310.07931, section 3.
Equation: forward x_i = s_i + sum_{j in N(i)} exp(-g_f |z_i - z_j|^2) s_j, s the difficulty; then,
again and again, k = argmax x is kept and x_j falls by exp(-g_r |z_k - z_j|^2) x_k for j in N(k).
The score is the place in the order of keeping.
Options: `num_neighbors`, `directed`, `gamma_forward` g_f, `gamma_reverse` g_r, `num_components`,
`difficulty`. As COINCIDE's baseline (https://github.com/G-JWLee/COINCIDE_code) has it: `margin`,
the area under the margin, so that the easy are kept, 5 directed neighbours, g_r 0.4, and the mean
of all tokens of the last layer (`selection.features: conversation`); preset:published/d2.
Ours: features z are PRISM's, centred, PCA-reduced and normalised; s is scaled to [0, 1] inside the
group and is, by default, minus PRISM's redundancy ("perplexity" and "el2n" are the scorers of these
names: the paper takes scores of training dynamics); the graph holds all records of a group, also
those that share a feature, and an edge holds in both directions unless `directed`; of equal values
a hash of the uid decides; inside each source with `scope: per_source`.
Cost: forward (PRISM's; with a difficulty of the whole model its forward pass too), then O(N^2 K) in
faiss for K components and O(N Q log N) for Q neighbours.

Shape legend: M records, B records of a group.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config, Count
from prism_tune.features.neighbours import connect_nearest
from prism_tune.features.reduction import reduce_features
from prism_tune.features.row_pairs import RowPairs, split_by
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.evidence.whole_model import ANSWER_LOSSES
from prism_tune.selection.scorer_options import read_options
from prism_tune.selection.scorers.pick_order import PickOptions, rank_picks
from prism_tune.selection.scorers.prism import score as score_redundancy
from prism_tune.selection.scorers.readable import score_among
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext, mark_rows
from prism_tune.selection.subset import hash_uids

Gamma = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_COLUMNS = {"perplexity": "nll", "el2n": "el2n", "margin": "margin"}


class D2Options(PickOptions):
    """`selection.options` of d2."""

    difficulty: Literal["redundancy", "perplexity", "el2n", "margin"] = "redundancy"
    num_neighbors: Count = 10
    directed: bool = False
    gamma_forward: Gamma = 1.0
    gamma_reverse: Gamma = 1.0


def reads(config: Config) -> tuple[EvidenceSource, ...]:
    """The features, and the losses where these are the difficulty."""
    is_measured = read_options(config, D2Options).difficulty in _COLUMNS
    return (FEATURES, ANSWER_LOSSES) if is_measured else (FEATURES,)


def score(context: ScoringContext) -> ScoredRecords:
    """The place of every kept record, from 0, inside its group; the rest share the next one.

    Records without a finite loss are in no graph, where they would take messages and get a place.
    """
    asked = read_options(context.config, D2Options).difficulty
    if asked not in _COLUMNS:
        return _score_known(context)
    unknown_M = ~np.isfinite(context.measured[_COLUMNS[asked]])
    return score_among(_score_known, context, {"no_score": unknown_M})


def _score_known(context: ScoringContext) -> ScoredRecords:
    options = read_options(context.config, D2Options)
    features_UD, pairs = context.paired_rows()
    reduced = reduce_features(features_UD, pairs, num_components=options.num_components)
    difficulty_M = _measure_difficulty(context, options)
    hashes_M = hash_uids(context.uids)
    wanted_G = context.most_taken(pairs.size_G)
    values_MK, picks = pairs.spread(reduced.values_PK), []
    for members, wanted in zip(_records_by_group(pairs), wanted_G.tolist(), strict=True):
        at = members[np.argsort(hashes_M[members], kind="stable")]
        graph = connect_nearest(values_MK[at], options.num_neighbors, directed=options.directed)
        values_B = graph.pass_forward(_scale(difficulty_M[at]), options.gamma_forward)
        picks.append(at[graph.pick_in_reverse(values_B, options.gamma_reverse, wanted)])
    return rank_picks(len(hashes_M), picks, reduced.diagnostics, mark_rows(reduced, pairs))


def _measure_difficulty(context: ScoringContext, options: D2Options) -> NDArray[np.float64]:
    if options.difficulty in _COLUMNS:
        return context.measured[_COLUMNS[options.difficulty]]
    return -score_redundancy(context).values_M


def _scale(values_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """To [0, 1]; all 0 where they are equal."""
    lowest, highest = values_B.min(), values_B.max()
    return (values_B - lowest) / (highest - lowest if highest > lowest else 1.0)


def _records_by_group(pairs: RowPairs) -> list[NDArray[np.int64]]:
    return split_by(pairs.spread(pairs.group_P), num_groups=len(pairs.size_G))
