"""Records that can be read, and those that cannot: one rule for every method.

A row with NaN or infinity (half precision that overflowed, a damaged model) says nothing of its
record. As zeros it would have a place all the same: nearer to all unit rows than they are to each
other, a cluster of its own, a share of a quota. So a method scores the pool as if there were no
such record; they get no score and come last. Where no record can be read there is nothing to
select by, and the selection ends.

Shape legend: M records to be scored, U rows, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prism_tune.errors import UserError
from prism_tune.features.reduction import find_finite
from prism_tune.selection.scorers.scorer import ScoredRecords, Scorer, ScoringContext
from prism_tune.selection.unranked import Reason

Score = Callable[[ScoringContext], ScoredRecords]
BoolArray = NDArray[np.bool_]


def score_readable(
    scorer: Scorer, context: ScoringContext, what: str = "image records"
) -> ScoredRecords:
    """The method's scores of the records whose rows are all finite; NaN for the others.

    Args:
        scorer: the method.
        context: with one record at least.
        what: the records are, for the message.

    Raises:
        UserError: no record can be read, or none gets a finite score.
    """
    left_out = {} if scorer.judges_rows else _find_unreadable(context)
    found = score_among(scorer.score, context, left_out)
    if not np.isfinite(found.values_M).any():
        raise none_readable(context, what)
    return found


def score_among(
    score: Score, context: ScoringContext, left_out: Mapping[Reason, BoolArray]
) -> ScoredRecords:
    """The scores of some of the records, as if there were no others; these get NaN.

    Args:
        score: the method.
        context: of all.
        left_out: the others, by why. Of none at all every score is NaN.
    """
    kept_M = np.ones(len(context.records_M), dtype=bool)
    for mask in left_out.values():
        kept_M &= ~mask
    if kept_M.all():
        return score(context)
    values_M = np.full(len(kept_M), np.nan)
    if not kept_M.any():
        return ScoredRecords(values_M, {}, left_out)
    found = score(_keep_records(context, kept_M))
    values_M[kept_M] = found.values_M
    unranked = dict(left_out)
    for reason, mask in found.unranked.items():
        whole_M = np.zeros(len(kept_M), dtype=bool)
        whole_M[kept_M] = mask
        unranked[reason] = whole_M | left_out.get(reason, False)
    diagnostics = dict(found.diagnostics)
    if "feature_not_finite" in left_out:
        diagnostics["num_non_finite"] = int(left_out["feature_not_finite"].sum())
    return ScoredRecords(values_M, diagnostics, unranked)


def none_readable(context: ScoringContext, what: str = "image records") -> UserError:
    """What is raised where nothing tells any two records apart, as none could be read."""
    remedy = "" if what == "rows" else "; selection.dtype=float32 may help"
    return UserError(
        f"{context.config.selection.scorer}: none of the {len(context.records_M)} {what} has a "
        f"finite score{remedy}"
    )


def _find_unreadable(context: ScoringContext) -> dict[Reason, BoolArray]:
    """The records with a row that is not finite: of the features, and of other evidence."""
    left_out: dict[Reason, BoolArray] = {}
    if context.features_UD is not None and context.row_M is not None:
        left_out["feature_not_finite"] = ~find_finite(context.features_UD)[context.row_M]
    for rows_UD, row_M in context.more_rows.values():
        unreadable_M = ~find_finite(rows_UD)[row_M]
        left_out["no_score"] = unreadable_M | left_out.get("no_score", False)
    return left_out


def _keep_records(context: ScoringContext, kept_M: BoolArray) -> ScoringContext:
    """The context of some of its records; of each group as many can be taken as before."""
    groups_M, codes_M = context.groups_M, np.zeros(len(kept_M), dtype=np.int64)
    if groups_M is not None:
        codes_M = np.unique(groups_M, return_inverse=True)[1]
    left_G = np.bincount(codes_M[kept_M], minlength=int(codes_M.max()) + 1)
    most_G = np.minimum(context.most_taken(np.bincount(codes_M)), left_G)
    most = context.num_taken()
    more_rows = {name: (rows, row_M[kept_M]) for name, (rows, row_M) in context.more_rows.items()}
    return replace(
        context,
        records_M=context.records_M[kept_M],
        groups_M=None if groups_M is None else groups_M[kept_M],
        row_M=None if context.row_M is None else context.row_M[kept_M],
        measured={name: values_M[kept_M] for name, values_M in context.measured.items()},
        most_G=most_G[left_G > 0],
        most=None if most is None else min(most, int(kept_M.sum())),
        more_rows=more_rows,
    )
