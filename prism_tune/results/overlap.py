"""Which records runs kept: what subsets have in common, and how much planted redundancy is left.

Reads selection/scores.parquet, and `compare.planted`: {record id: {"kind": ..., "of": id of the
record it repeats, or null}}.

Shape legend: N records of the pool, R runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_json


@dataclass(frozen=True)
class Kept:
    """The uids of kept records, out of `num_candidates`."""

    uids: pa.ChunkedArray
    num_candidates: int


@dataclass(frozen=True)
class Overlap:
    """Two subsets.

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


def measure_overlap(first: Kept, second: Kept) -> Overlap:
    """Compare by uid, so that the order of the pools does not matter."""
    shared = pc.sum(pc.is_in(first.uids, value_set=second.uids.combine_chunks())).as_py() or 0
    return Overlap(len(first.uids), len(second.uids), int(shared), _expected(first, second))


def overlap_matrix(subsets: Sequence[Kept]) -> list[list[Overlap]]:
    """Every subset against every other, (R, R)."""
    return [[measure_overlap(a, b) for b in subsets] for a in subsets]


def _expected(first: Kept, second: Kept) -> float | None:
    if first.num_candidates == 0 or first.num_candidates != second.num_candidates:
        return None
    p, q = (len(subset.uids) / subset.num_candidates for subset in (first, second))
    return p * q / (p + q - p * q) if p + q > 0 else None


@dataclass(frozen=True)
class Choice:
    """What a selection chose of its pool; `uids`, `ids` and `sources` are the pool's."""

    selected_N: NDArray[np.bool_]
    uids: pa.ChunkedArray
    ids: NDArray[np.object_]
    sources: NDArray[np.object_]

    @property
    def kept(self) -> Kept:
        """All kept records, text-only ones among them."""
        return Kept(self.uids.filter(pa.array(self.selected_N)), len(self.selected_N))

    def source_shares(self) -> dict[str, float]:
        """Each source's share of the kept records."""
        names, counts = np.unique(self.sources[self.selected_N].astype(str), return_counts=True)
        found = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
        return {name: found.get(name, 0.0) for name in sorted(set(self.sources.tolist()))}


def read_choice(run: RunDir) -> Choice:
    """What a finished selection chose.

    Raises:
        UserError: scores.parquet is not there, or cannot be read.
    """
    path = run.selection / "scores.parquet"
    try:
        table = pq.read_table(path, columns=["uid", "id", "source", "selected"])
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet: {error}") from error
    ids, sources = (np.array(table[name].to_pylist(), dtype=object) for name in ("id", "source"))
    return Choice(table["selected"].to_numpy(), table["uid"], ids, sources)


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


def removed_shares(choice: Choice, planted: Mapping[str, Plant]) -> dict[str, float]:
    """By kind: the share of the planted records that is not in the subset.

    Raises:
        UserError: a planted record that the pool does not have.
    """
    unknown = planted.keys() - set(choice.ids.tolist())
    if unknown:
        raise UserError(f"compare.planted: {min(unknown)!r} is not the id of a record of the pool")
    totals = Counter(plant.kind for plant in planted.values())
    selected = choice.ids[choice.selected_N].tolist()
    left = Counter(planted[key].kind for key in selected if key in planted)
    return {kind: 1 - left[kind] / totals[kind] for kind in sorted(totals)}


def repeated_share(choice: Choice, planted: Mapping[str, Plant]) -> float:
    """The share of the subset that repeats another record of it: 0 is a subset without copies."""
    selected: Sequence[str] = choice.ids[choice.selected_N].tolist()
    originals = {(planted[key].of or key) if key in planted else key for key in selected}
    return 1 - len(originals) / len(selected) if selected else 0.0
