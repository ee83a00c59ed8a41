"""A scorer: keep what is hard to answer, on images unlike the rest of their source."""

import numpy as np

from prism_tune import ScoredRecords, Scorer, ScoringContext, evidence


def score(context: ScoringContext) -> ScoredRecords:
    """One number for each of the M records to be scored; `keep` says which end is kept."""
    features_UD, row_M = context.rows()  # the evidence "features": a record's row is row_M[m]
    features_MD = features_UD[slice(0, features_UD.shape[0])][row_M].astype(np.float64)
    losses_M = context.measured["nll"]  # of "answer_losses", by the names of its columns
    groups_M = context.groups_M  # the sources; None for selection.scope: global
    scores_M = np.zeros(len(row_M))
    for group in [None] if groups_M is None else np.unique(groups_M):
        inside_M = slice(None) if group is None else groups_M == group
        centred_MD = features_MD[inside_M] - features_MD[inside_M].mean(axis=0)
        scores_M[inside_M] = np.linalg.norm(centred_MD, axis=1) * losses_M[inside_M]
    return ScoredRecords(scores_M, {"mean_loss": float(losses_M.mean())})  # into manifest.json


SCORERS = {
    "rare_and_hard": Scorer(score, evidence("features", "answer_losses"), keep="high"),
}
