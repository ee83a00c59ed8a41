"""The records of each source: how many, how many kept, how they score, and where they were cut.

Shape legend: N records of the pool, K records of one source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_pairs import split_by
from prism_tune.results.records import RecordTable
from prism_tune.results.runs import Keep

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class SourceSummary:
    """One source.

    `num_text_only` of the kept records were never ranked; `quantiles` are of the scores, at 5, 25,
    50, 75 and 95 percent, empty without ranked records, as are `cuts` (see `find_cuts`).
    """

    name: str
    num_records: int
    num_kept: int
    num_text_only: int
    quantiles: tuple[float, ...]
    cuts: tuple[float, ...]

    @property
    def num_dropped(self) -> int:
        """Records that were not kept."""
        return self.num_records - self.num_kept


def summarise_sources(records: RecordTable, keep: Keep) -> list[SourceSummary]:
    """All sources, the largest first."""
    text_only_N = records.reasons.mask("text_only")
    parts = split_by(records.sources.codes_N, num_groups=len(records.sources.names))
    summaries = []
    for name, rows_K in zip(records.sources.names, parts, strict=True):
        ranked_scores = records.score_N[rows_K[records.is_ranked_N[rows_K]]]
        quantiles = np.quantile(ranked_scores, QUANTILES).tolist() if len(ranked_scores) else []
        summaries.append(
            SourceSummary(
                name=name,
                num_records=len(rows_K),
                num_kept=int(records.selected_N[rows_K].sum()),
                num_text_only=int(text_only_N[rows_K].sum()),
                quantiles=tuple(quantiles),
                cuts=find_cuts(records, rows_K, keep),
            )
        )
    return sorted(summaries, key=lambda source: (-source.num_records, source.name))


def find_cuts(records: RecordTable, rows_K: NDArray[np.int64], keep: Keep) -> tuple[float, ...]:
    """The scores between kept and dropped records of a group that was cut as one.

    One for the lowest or the highest, halfway between the last kept and the first dropped; two for
    the middle, the first and the last kept; none where all or none were kept. Records that a list
    had kept are beside the cut.
    """
    cut_K = rows_K[records.is_cut_N[rows_K]]
    scores_K, selected_K = records.score_N[cut_K], records.selected_N[cut_K]
    kept, dropped = scores_K[selected_K], scores_K[~selected_K]
    if len(kept) == 0 or len(dropped) == 0:
        return ()
    if keep == "middle":
        return float(kept.min()), float(kept.max())
    low, high = (kept, dropped) if keep == "low" else (dropped, kept)
    return (float(low.max() + high.min()) / 2,)
