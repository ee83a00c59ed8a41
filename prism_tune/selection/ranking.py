"""From features to verdicts: every record's score, rank and reason.

Shape legend: N records of the pool, M records to be scored (with image, not skipped).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.features import FeatureTable
from prism_tune.selection.scorers.scorer import ScoredRecords, Scorer, ScoringContext
from prism_tune.selection.subset import cut_subset


@dataclass(frozen=True)
class Ranking:
    """The verdict on every record of the pool, in the pool's order.

    `scores_N` is NaN and `rank_N` 0 where a record is not ranked; `reasons` are "selected",
    "below_cut", "text_only" (kept), or why the record was skipped. `feature_keys` name the rows of
    the feature store; None where a record has none.
    """

    scores_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    selected_N: NDArray[np.bool_]
    reasons: list[str]
    feature_keys: list[str | None]
    skipped: tuple[Skipped, ...]
    description: dict[str, Any]


def rank_pool(config: Config, pool: Pool, table: FeatureTable, scorer: Scorer) -> Ranking:
    """Score the image records, and cut the pool without the skipped ones.

    Raises:
        UserError: a budget that cannot be met.
    """
    text_only_N = pool.is_text_only_N
    by_uid = {item.uid: item.reason for item in table.skipped}
    skipped_N = np.array([uid in by_uid for uid in pool.uids], dtype=bool)
    sources_N = np.array(pool.sources)
    by_source = config.selection.scope == "per_source"
    records_M = np.flatnonzero(~text_only_N & ~skipped_N)
    context = ScoringContext(
        config=config,
        pool=pool,
        records_M=records_M,
        groups_M=sources_N[records_M] if by_source else None,
        features_UD=table.values_UD,
        row_M=table.row_N[records_M],
        measured={name: values_N[records_M] for name, values_N in table.measured.items()},
    )
    scored = scorer.score(context) if len(records_M) else ScoredRecords(np.zeros(0), {})
    keep = config.selection.keep
    assert keep is not None  # the scorer has completed the config
    scores_N = np.full(len(pool), np.nan)
    scores_N[records_M] = scored.values_M
    usable = np.flatnonzero(~skipped_N)
    cut = cut_subset(
        scores_N[usable],
        uids=[pool.uids[i] for i in usable.tolist()],
        is_text_only_N=text_only_N[usable],
        budget=config.selection.budget,
        keep=keep,
        groups_N=sources_N[usable] if by_source else None,
    )
    rank_N = np.zeros(len(pool), dtype=np.int64)
    rank_N[usable] = cut.rank_N
    selected_N = np.zeros(len(pool), dtype=bool)
    selected_N[usable] = cut.selected_N
    reasons = [by_uid.get(uid, "") for uid in pool.uids]
    for place, reason in zip(usable.tolist(), cut.reasons, strict=True):
        reasons[place] = reason
    description = {**scored.diagnostics, "features": table.description}
    return Ranking(scores_N, rank_N, selected_N, reasons, table.keys(), table.skipped, description)
