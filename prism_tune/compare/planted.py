"""How much of the redundancy that was planted in a pool a selector removes.

Reads `compare.planted`: {record id: {"kind": ..., "of": id of the record it repeats, or null}}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prism_tune.compare.results import Kept
from prism_tune.errors import UserError
from prism_tune.run.folder import read_json


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


def removed_shares(kept: Kept, planted: Mapping[str, Plant]) -> dict[str, float]:
    """By kind: the share of the planted records that is not in the subset.

    Raises:
        UserError: a planted record that the pool does not have.
    """
    pool = kept.ids.tolist()
    unknown = planted.keys() - set(pool)
    if unknown:
        raise UserError(f"compare.planted: {min(unknown)!r} is not the id of a record of the pool")
    totals = Counter(plant.kind for plant in planted.values())
    selected = kept.ids[kept.selected_N].tolist()
    left = Counter(planted[key].kind for key in selected if key in planted)
    return {kind: 1 - left[kind] / totals[kind] for kind in sorted(totals)}


def repeated_share(kept: Kept, planted: Mapping[str, Plant]) -> float:
    """The share of the subset that repeats another record of it: 0 is a subset without copies."""
    selected: Sequence[str] = kept.ids[kept.selected_N].tolist()
    originals = {(planted[key].of or key) if key in planted else key for key in selected}
    return float(1 - len(originals) / max(len(selected), 1)) if np.any(kept.selected_N) else 0.0
