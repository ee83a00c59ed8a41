"""PRISM: the redundancy of an image's shallow feature inside its source.

Paper: "PRISM: Self-Pruning Intrinsic Selection Method for Training-Free Multimodal Data Selection",
https://arxiv.org/abs/2502.12119, section 3.
Equation: R_i = 1/(N-1) sum_{j != i} u_i.u_j, with u = (F - mean F)/|F - mean F|, F the mean over
the image tokens of the hidden state at layer k. Keep the lowest.
Cost: k decoder layers and the vision tower, once per distinct image; no gradient, no proxy model.
Known limit: the cut runs along one direction; there is no diversity term.
"""

from __future__ import annotations

from prism_tune.features.redundancy import score_redundancy
from prism_tune.features.spectrum import measure_anisotropy
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.unranked import Unranked


def score(context: ScoringContext) -> ScoredRecords:
    """Redundancy R of every record; low means unlike the rest of its group."""
    features_UD, row_M = context.rows()
    redundancy = score_redundancy(
        features_UD,
        centering=context.config.selection.centering,
        groups_N=context.groups_M,
        inverse_N=row_M,
    )
    diagnostics = {
        "num_zero_norm": redundancy.num_zero_norm,
        "num_non_finite": redundancy.num_non_finite,
        "anisotropy": measure_anisotropy(features_UD, inverse_N=row_M),
    }
    unranked: Unranked = {
        "feature_not_finite": redundancy.non_finite_N,
        "feature_like_all": redundancy.zero_N,
    }
    return ScoredRecords(redundancy.values_N, diagnostics, unranked)
