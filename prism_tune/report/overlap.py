"""How much subsets of several runs have in common.

Shape legend: R runs, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from prism_tune.report.run_files import RecordTable


@dataclass(frozen=True)
class Overlap:
    """Two subsets of image records.

    `expected` is the Jaccard index of two independent random subsets of these sizes; None where the
    pools are not the same.
    """

    num_first: int
    num_second: int
    num_shared: int
    expected: float | None

    @property
    def jaccard(self) -> float:
        """Shared records over the records in either; 0 for two empty subsets."""
        either = self.num_first + self.num_second - self.num_shared
        return self.num_shared / either if either else 0.0


def kept_uids(records: RecordTable) -> pa.ChunkedArray:
    """The uids of the kept records that were ranked: text-only ones are kept by every selector."""
    return records.uids.filter(pa.array(records.selected_N & records.is_ranked_N))


def measure_overlap(first: RecordTable, second: RecordTable) -> Overlap:
    """Compare by uid, so that the order of the pools does not matter."""
    kept, others = kept_uids(first), kept_uids(second)
    shared = pc.sum(pc.is_in(kept, value_set=others.combine_chunks())).as_py() or 0
    return Overlap(len(kept), len(others), int(shared), _expected(first, second))


def _expected(first: RecordTable, second: RecordTable) -> float | None:
    num_ranked = int(first.is_ranked_N.sum())
    if num_ranked == 0 or num_ranked != int(second.is_ranked_N.sum()):
        return None
    p, q = (len(kept_uids(records)) / num_ranked for records in (first, second))
    return p * q / (p + q - p * q) if p + q > 0 else None


def overlap_matrix(tables: Sequence[RecordTable]) -> list[list[Overlap]]:
    """Every subset against every other, (R, R)."""
    return [[measure_overlap(a, b) for b in tables] for a in tables]
