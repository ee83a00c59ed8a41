"""From evidence to verdicts: every record's score, rank and reason.

Shape legend: N records of the pool, M records to be scored (with image, not skipped).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.errors import UserError
from prism_tune.features.row_blocks import RowBlocks, default_block_rows
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.source import Evidence
from prism_tune.selection.scorers.scorer import ScoredRecords, Scorer, ScoringContext
from prism_tune.selection.subset import cut_subset

_ROUNDING = 64 * float(np.finfo(np.float32).eps)
"""A difference this much shorter than a feature is rounding noise, as in `features.redundancy`."""


@dataclass(frozen=True)
class Ranking:
    """The verdict on every record of the pool, in the pool's order.

    `scores_N` is NaN and `rank_N` 0 where a record is not ranked; `reasons` are "selected",
    "below_cut", "text_only" (kept), or why the record was skipped. `feature_keys` name the rows of
    the features; None where a record has none.
    """

    scores_N: NDArray[np.float64]
    rank_N: NDArray[np.int64]
    selected_N: NDArray[np.bool_]
    reasons: list[str]
    feature_keys: list[str | None]
    skipped: tuple[Skipped, ...]
    description: dict[str, Any]


def rank_pool(
    config: Config,
    pool: Pool,
    evidence: Mapping[str, Evidence],
    skipped: Mapping[int, Skipped],
    scorer: Scorer,
) -> Ranking:
    """Score the image records, and cut the pool without the skipped ones.

    Args:
        config: the experiment.
        pool: all records.
        evidence: on the pool, by the name of its source.
        skipped: the records left out, with reasons, by index.
        scorer: the method.

    Raises:
        UserError: a budget that cannot be met, or features that are all the same.
    """
    text_only_N = pool.is_text_only_N
    skipped_N = np.zeros(len(pool), dtype=bool)
    skipped_N[list(skipped)] = True
    sources_N = np.array(pool.sources)
    by_source = config.selection.scope == "per_source"
    records_M = np.flatnonzero(~text_only_N & ~skipped_N)
    groups_M = sources_N[records_M] if by_source else None
    context = _build_context(config, pool, evidence, records_M, groups_M)
    if context.features_UD is not None and context.row_M is not None and len(records_M) > 1:
        _require_varied(context.features_UD, np.unique(context.row_M[context.row_M >= 0]))
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
    reasons = [skipped[index].reason if index in skipped else "" for index in range(len(pool))]
    for place, reason in zip(usable.tolist(), cut.reasons, strict=True):
        reasons[place] = reason
    nothing: list[str | None] = [None] * len(pool)
    features = evidence.get(FEATURES.name)
    keys = nothing if features is None else features.keys()
    left_out = tuple(skipped.values())
    return Ranking(scores_N, rank_N, selected_N, reasons, keys, left_out, scored.diagnostics)


def _require_varied(features_UD: RowBlocks, rows: NDArray[np.int64]) -> None:
    """Refuse features that are all zero once centred: every score would be equal."""
    if not len(rows):
        return
    first = int(rows[0])
    first_D = features_UD[slice(first, first + 1)][0].astype(np.float64)
    zero = _ROUNDING * float(np.linalg.norm(first_D))
    block = default_block_rows(features_UD.shape[1], features_UD.dtype)
    for start in range(first, int(rows[-1]) + 1, block):
        wanted = rows[(rows >= start) & (rows < start + block)] - start
        block_UD = features_UD[slice(start, start + block)][wanted].astype(np.float64)
        if not (np.linalg.norm(block_UD - first_D, axis=1) <= zero).all():  # or not finite
            return
    raise UserError(
        f"the features of all image records are the same ({len(rows)} distinct of image and "
        "prompt), so that centred they are zero and every score is equal: the subset would be a draw; "
        "pictures that differ, or a model and selection.layer that see them, are needed"
    )


def _build_context(
    config: Config,
    pool: Pool,
    evidence: Mapping[str, Evidence],
    records_M: NDArray[np.int64],
    groups_M: NDArray[Any] | None,
) -> ScoringContext:
    """What the scorer is given of the records to be scored."""
    features = evidence.get(FEATURES.name)
    columns = [of_kind.read_columns() for of_kind in evidence.values()]
    return ScoringContext(
        config=config,
        pool=pool,
        records_M=records_M,
        groups_M=groups_M,
        features_UD=None if features is None else features.values_UD,
        row_M=None if features is None else features.row_N[records_M],
        measured={k: v[records_M] for of_kind in columns for k, v in of_kind.items()},
    )
