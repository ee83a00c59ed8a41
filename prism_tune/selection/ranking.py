"""From evidence to verdicts: every record's score, rank and reason.

Shape legend: N records of the pool, M records to be scored (with image, not skipped).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import UserError
from prism_tune.features.row_blocks import RowBlocks, default_block_rows, rounding_share
from prism_tune.schema import Skipped
from prism_tune.selection.budgets import (
    Candidates,
    cut_pool,
    list_budgets,
    most_of_all,
    most_of_groups,
    name_budget,
)
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.source import Evidence
from prism_tune.selection.scorers.readable import score_readable
from prism_tune.selection.scorers.scorer import ScoredRecords, Scorer, ScoringContext
from prism_tune.selection.subset import Cut, hash_uids
from prism_tune.selection.unranked import describe_unranked, name_unranked


@dataclass(frozen=True)
class Ranking:
    """The verdict on every record of the pool, in the pool's order.

    `scores_N` is NaN where a record has none and `rank_N` 0 where it is not ranked; `reasons` are
    "selected", "must_keep", "below_cut", "text_only" (kept), "text_dropped", or why the record was
    skipped. `feature_keys` name the rows of the features; None where a record has none.
    `unranked` says which records the method could not rank, and why. `further` are the records that
    the further budgets keep, by their names.
    """

    scores_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    selected_N: NDArray[np.bool_]
    reasons: list[str]
    feature_keys: list[str | None]
    skipped: tuple[Skipped, ...]
    description: dict[str, Any]
    unranked: list[str | None] = field(default_factory=list)
    further: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def rank_pool(
    config: Config,
    pool: Pool,
    evidence: Mapping[str, Evidence],
    skipped: Mapping[int, Skipped],
    scorer: Scorer,
    candidates: Candidates,
) -> Ranking:
    """Score the image records, and cut the pool without the skipped ones.

    Args:
        config: the experiment.
        pool: all records.
        evidence: on the pool, by the name of its source.
        skipped: the records left out, with reasons, by index.
        scorer: the method.
        candidates: the pool's records, as they are cut.

    Raises:
        UserError: a budget that cannot be met, features that are all the same, or no record with a
            finite score.
    """
    skipped_N = np.zeros(len(pool), dtype=bool)
    skipped_N[list(skipped)] = True
    records_M = np.flatnonzero(~candidates.is_text_only_N & ~skipped_N)
    usable = np.flatnonzero(~skipped_N)
    cut_of = candidates.of(usable)
    context = _build_context(config, pool, evidence, records_M, cut_of)
    if context.features_UD is not None and context.row_M is not None and len(records_M) > 1:
        require_varied(context.features_UD, np.unique(context.row_M[context.row_M >= 0]))
    nothing = ScoredRecords(np.zeros(0), {})
    scored = score_readable(scorer, context) if len(records_M) else nothing
    values_M = np.where(np.isfinite(scored.values_M), scored.values_M, np.nan)
    scores_N = np.full(len(pool), np.nan)
    scores_N[records_M] = values_M
    cuts = _cut_usable(config, cut_of, scores_N[usable])
    first = cuts.pop(name_budget(config.selection.budget))
    rank_N = np.zeros(len(pool), dtype=np.int64)
    rank_N[usable] = first.rank_N
    reasons = [skipped[index].reason if index in skipped else "" for index in range(len(pool))]
    for place, reason in zip(usable.tolist(), first.reasons, strict=True):
        reasons[place] = reason
    names = [] if scorer.draws else name_unranked(scored.unranked, values_M, context.groups_M)
    unranked: list[str | None] = [None] * len(pool)
    for index, name in zip(records_M.tolist(), names, strict=bool(names)):
        unranked[index] = name
    by_source = config.selection.scope == "per_source"
    sources = [pool.sources[index] for index in records_M.tolist()] if names else []
    features = evidence.get(FEATURES.name)
    return Ranking(
        scores_N,
        rank_N,
        _spread(usable, first, len(pool)),
        reasons,
        [None] * len(pool) if features is None else features.keys(),
        tuple(skipped.values()),
        {**scored.diagnostics, "unranked": describe_unranked(names, sources, by_source=by_source)},
        unranked,
        {budget: _spread(usable, cut, len(pool)) for budget, cut in cuts.items()},
    )


def _cut_usable(
    config: Config, candidates: Candidates, scores: NDArray[np.float64]
) -> dict[str, Cut]:
    """The cut of every budget. Text-only records that are a source of their own are drawn."""
    text = np.flatnonzero(candidates.is_text_only_N)
    uids = [candidates.uids[index] for index in text.tolist()]
    scores[text] = hash_uids(uids, config.seed).astype(np.float64)
    selection = config.selection
    return {
        name_budget(budget): cut_pool(selection, candidates, scores, budget)
        for budget in list_budgets(selection)
    }


def _spread(usable: NDArray[np.int64], cut: Cut, num_records: int) -> NDArray[np.bool_]:
    selected_N = np.zeros(num_records, dtype=bool)
    selected_N[usable] = cut.selected_N
    return selected_N


def require_varied(
    features_UD: RowBlocks,
    rows: NDArray[np.int64],
    *,
    what: str = "all image records",
    of: str = "distinct of image and prompt",
    needed: str = "pictures that differ, or a model and selection.layer that see them, are needed",
) -> None:
    """Refuse features that are all zero once centred: every score would be equal.

    Args:
        features_UD: of all.
        rows: those that are compared, in order.
        what: has them, for the message.
        of: what the rows are.
        needed: what helps.

    Raises:
        UserError: they are all the same.
    """
    if not len(rows):
        return
    first = int(rows[0])
    first_D = features_UD[slice(first, first + 1)][0].astype(np.float64)
    zero = rounding_share(np.dtype(np.float32)) * float(np.linalg.norm(first_D))
    block = default_block_rows(features_UD.shape[1], features_UD.dtype)
    for start in range(first, int(rows[-1]) + 1, block):
        wanted = rows[(rows >= start) & (rows < start + block)] - start
        block_UD = features_UD[slice(start, start + block)][wanted].astype(np.float64)
        if not (np.linalg.norm(block_UD - first_D, axis=1) <= zero).all():  # or not finite
            return
    raise UserError(
        f"the features of {what} are the same ({len(rows)} {of}), so that centred they are zero "
        f"and every score is equal: the subset would be a draw; {needed}"
    )


def _build_context(
    config: Config,
    pool: Pool,
    evidence: Mapping[str, Evidence],
    records_M: NDArray[np.int64],
    candidates: Candidates,
) -> ScoringContext:
    """What the scorer is given of the records to be scored."""
    by_source = config.selection.scope == "per_source"
    groups_M = np.array(pool.sources)[records_M] if by_source else None
    features = evidence.get(FEATURES.name)
    columns = [of_kind.read_columns() for of_kind in evidence.values()]
    sizes_G = np.array([len(records_M)])
    if groups_M is not None:
        sizes_G = np.unique(groups_M, return_counts=True)[1]
    return ScoringContext(
        config=config,
        pool=pool,
        records_M=records_M,
        groups_M=groups_M,
        features_UD=None if features is None else features.values_UD,
        row_M=None if features is None else features.row_N[records_M],
        measured={k: v[records_M] for of_kind in columns for k, v in of_kind.items()},
        most_G=most_of_groups(config.selection, candidates, sizes_G),
        most=most_of_all(config.selection, candidates),
        more_rows={
            name: (of_kind.values_UD, of_kind.row_N[records_M])
            for name, of_kind in evidence.items()
            if name != FEATURES.name and not of_kind.columns and of_kind.values_UD is not None
        },
    )
