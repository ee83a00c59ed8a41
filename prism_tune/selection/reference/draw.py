"""The records of a warm-up: a share of the pool, by source.

Shape legend: N records of the pool, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import WarmupConfig
from prism_tune.selection.subset import apportion, hash_uids


def draw_records(
    uids: Sequence[str],
    sources_N: NDArray[np.str_],
    usable_N: NDArray[np.bool_],
    warmup: WarmupConfig,
) -> list[int]:
    """The records to warm up on: those of the smallest hashes of uid and seed, by source.

    Args:
        uids: of the pool.
        sources_N: of each record.
        usable_N: which can be drawn.
        warmup: how many, and of which sources.

    Returns:
        Indices, in the pool's order; at least one.
    """
    hashes_N = hash_uids(uids, warmup.seed)
    names, codes_N = np.unique(sources_N, return_inverse=True)
    sizes_S = np.bincount(codes_N[usable_N], minlength=len(names))
    total = max(1, int(np.floor(warmup.share * usable_N.sum() + 0.5)))
    if warmup.per_source == "equal":
        quota_S = share_equally(total, sizes_S)
    else:
        quota_S = apportion(total, sizes_S, sizes_S)
    drawn: list[int] = []
    for code, quota in enumerate(quota_S.tolist()):
        own = np.flatnonzero(usable_N & (codes_N == code))
        drawn += own[np.argsort(hashes_N[own], kind="stable")][:quota].tolist()
    return sorted(drawn)


def share_equally(total: int, sizes_S: NDArray[np.int64]) -> NDArray[np.int64]:
    """Equal quotas, as far as each source goes; what is left over goes one by one to the largest.

    Sizes 10, 2, 10 and a total of 9: 4, 2, 3.
    """
    quota_S = np.zeros(len(sizes_S), dtype=np.int64)
    left = min(total, int(sizes_S.sum()))
    while left:
        open_S = np.flatnonzero(quota_S < sizes_S)
        each = left // len(open_S)
        if each == 0:
            largest = open_S[np.argsort(-sizes_S[open_S], kind="stable")]
            quota_S[largest[:left]] += 1
            break
        added = np.minimum(each, sizes_S[open_S] - quota_S[open_S])
        quota_S[open_S] += added
        left -= int(added.sum())
    return quota_S
