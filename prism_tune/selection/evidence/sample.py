"""Evidence on a part of every source, for methods that measure sources and not each record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.source import (
    Evidence,
    EvidenceSource,
    Gathering,
    find_measured,
)
from prism_tune.selection.subset import hash_uids


def sample(
    source: EvidenceSource, share: Callable[[Config], float], *, by_seed: bool = True
) -> EvidenceSource:
    """The same source, which computes so large a share of every source's records and no others.

    Records are drawn by a hash of their uid and the seed, or of the uid alone, at least one of each
    source; the others have no row. The rows lie in the same store.
    """

    def compute(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
        seed = gathering.config.seed if by_seed else None
        others = _draw_others(gathering, left_out, share(gathering.config), seed)
        found = source.compute(gathering, {**left_out, **others})
        skipped = {index: item for index, item in found.skipped.items() if index not in others}
        return replace(found, skipped=skipped)

    return replace(source, compute=compute)


def _draw_others(
    gathering: Gathering, left_out: Mapping[int, Skipped], share: float, seed: int | None
) -> dict[int, Skipped]:
    config, pool = gathering.config, gathering.pool
    usable = [n for n in np.flatnonzero(find_measured(config, pool)).tolist() if n not in left_out]
    hashes = hash_uids([pool.uids[n] for n in usable], seed)
    order = [usable[place] for place in np.argsort(hashes, kind="stable").tolist()]
    by_source: dict[str, list[int]] = {}
    for index in order:
        by_source.setdefault(pool.sources[index], []).append(index)
    return {
        index: _leave_out(pool, index)
        for members in by_source.values()
        for index in members[max(1, round(share * len(members))) :]
    }


def _leave_out(pool: Pool, index: int) -> Skipped:
    return Skipped(pool.uids[index], pool.ids[index], "not_sampled", "")
