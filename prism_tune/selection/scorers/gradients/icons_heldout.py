"""icons_heldout: votes of tasks, after ICONS, whose tasks are not to be had. Ours: not ICONS.

Reference: Wu et al., "ICONS: Influence Consensus for Vision-Language Data Selection",
https://arxiv.org/abs/2501.00654; code: princetonvisualai/icons. Its tasks are the questions of ten
benchmarks, whose answers' gradients decide; these files were never published, and a selection that
reads the benchmarks is none for us. Its own subset can be imported as ids (docs/selectors.md).
Equation: influence of record i on task t = mean over the task's records v of cos(g_i, g_v), g the
gradient of the mean answer loss with respect to all LoRA matrices after a warm-up. Task t votes for
i where its influence is at least the (100 - p)th percentile of the task's, p the share of the
scored records that the budget takes, in per cent. Most votes win; the score is the votes plus the
mean over the tasks of i's share of records with less influence, which is below 1.
Ours: tasks are 64 records of each source (a tenth at most), drawn by hash, which come last
(`held_out`); ties, a fifth to two fifths of an official subset, by the mean percentile, then by
hash (official: argsort's order); percentiles inside each source with `scope: per_source`; sketches
in place of a Rademacher projection to 5,120. With `selection.budgets` the votes are those of the
largest.
Cost: a warm-up, then forward and backward (the whole model, once per distinct record); O(N S T).

Shape legend: M records, N those of a group, T tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import ConfigError
from prism_tune.selection.scorers.gradients.heldout import measure_influences
from prism_tune.selection.scorers.scorer import ScoredRecords, ScoringContext
from prism_tune.selection.unranked import Unranked

FloatArray = NDArray[np.float64]


def score(context: ScoringContext) -> ScoredRecords:
    """Votes, and the mean percentile behind the point."""
    share = budget_share(context)
    found = measure_influences(context)
    values_M = np.full(len(found.values_MT), np.nan)
    groups_M = np.zeros(len(values_M)) if context.groups_M is None else context.groups_M
    left_M = ~(found.is_heldout_M | found.is_unknown_M)
    for group in np.unique(groups_M[left_M]):
        own = np.flatnonzero(left_M & (groups_M == group))
        values_M[own] = count_votes(found.values_MT[own], share)
    diagnostics = {"num_heldout": found.tasks, "share_voted_for": share}
    unranked: Unranked = {"held_out": found.is_heldout_M, "no_score": found.is_unknown_M}
    return ScoredRecords(values_M, diagnostics, unranked)


def count_votes(influences_NT: FloatArray, share: float) -> FloatArray:
    """Votes plus the mean over the tasks of the share of records below, (N,)."""
    thresholds_T = np.percentile(influences_NT, 100 * (1 - share), axis=0)
    votes_N = (influences_NT >= thresholds_T).sum(axis=1)
    below_NT = np.empty(influences_NT.shape)
    for task, column in enumerate(influences_NT.T):
        below_NT[:, task] = np.searchsorted(np.sort(column), column)
    return votes_N + below_NT.mean(axis=1) / len(influences_NT)


def budget_share(context: ScoringContext) -> float:
    """The share of the records to be scored that the budget takes, however it is written.

    Where only the cut will tell (tokens, `source_budgets`), the budget as a fraction.

    Raises:
        ConfigError: a number of tokens, which is none.
    """
    selection, num_records = context.config.selection, max(len(context.records_M), 1)
    num_taken = context.num_taken()
    if num_taken is not None:
        return num_taken / num_records
    if isinstance(selection.budget, float):
        return selection.budget
    if selection.budget_of == "tokens":
        raise ConfigError(
            f"{selection.scorer}: votes need the budget as a share; give selection.budget a "
            "fraction of the tokens"
        )
    return min(1.0, selection.budget / num_records)
