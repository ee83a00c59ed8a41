"""Which records runs kept: what subsets have in common, and how much planted redundancy is left.

Overlap is over image records: text-only ones are kept by every selector, and would make any two
subsets look alike. Planted redundancy is `compare.planted`: {record id: {"kind": ..., "of": id of
the record it repeats, or null}}.

Shape legend: R runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from prism_tune.errors import UserError
from prism_tune.results.records import RecordTable
from prism_tune.run.folder import read_json


@dataclass(frozen=True)
class Overlap:
    """Two subsets.

    `expected` is the Jaccard index of two independent random subsets of these sizes; None where
    they are not of the same image records.
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


def measure_overlap(first: RecordTable, second: RecordTable) -> Overlap:
    """Compare the kept image records by uid, so that the order of the pools does not matter."""
    shared = pc.sum(pc.is_in(first.kept, value_set=second.kept.combine_chunks())).as_py() or 0
    return Overlap(len(first.kept), len(second.kept), int(shared), _expected(first, second))


def overlap_matrix(subsets: Sequence[RecordTable]) -> list[list[Overlap]]:
    """Every subset against every other, (R, R)."""
    return [[measure_overlap(a, b) for b in subsets] for a in subsets]


def _expected(first: RecordTable, second: RecordTable) -> float | None:
    num_candidates = len(first.ranked)
    if num_candidates == 0 or num_candidates != len(second.ranked):
        return None
    if not pc.all(pc.is_in(first.ranked, value_set=second.ranked.combine_chunks())).as_py():
        return None
    p, q = (len(subset.kept) / num_candidates for subset in (first, second))
    return p * q / (p + q - p * q) if p + q > 0 else None


@dataclass(frozen=True)
class Plant:
    """A planted record: of which kind, and what it repeats (None: nothing in particular)."""

    kind: str
    of: str | None


def read_planted(path: Path) -> dict[str, Plant]:
    """The planted records by id.

    Raises:
        UserError: not such a file.
    """
    content = read_json(path)
    try:
        return {key: Plant(str(item["kind"]), item["of"]) for key, item in content.items()}
    except (AttributeError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: expected an object of record ids, each with `kind` and `of` ({error!r})"
        ) from error


def removed_shares(records: RecordTable, planted: Mapping[str, Plant]) -> dict[str, float]:
    """By kind: the share of the planted records that is not in the subset.

    Raises:
        UserError: a planted record that the pool does not have.
    """
    unknown = planted.keys() - set(records.ids.to_pylist())
    if unknown:
        raise UserError(f"compare.planted: {min(unknown)!r} is not the id of a record of the pool")
    totals = Counter(plant.kind for plant in planted.values())
    selected = _kept_ids(records)
    left = Counter(planted[key].kind for key in selected if key in planted)
    return {kind: 1 - left[kind] / totals[kind] for kind in sorted(totals)}


def repeated_share(records: RecordTable, planted: Mapping[str, Plant]) -> float:
    """The share of the subset beyond the first record of each original and its copies.

    0 is a subset without copies, or with one in its original's place.
    """
    selected = _kept_ids(records)
    originals = {(planted[key].of or key) if key in planted else key for key in selected}
    return 1 - len(originals) / len(selected) if selected else 0.0


def _kept_ids(records: RecordTable) -> list[str]:
    ids: list[str] = records.ids.filter(pa.array(records.selected_N)).to_pylist()
    return ids
