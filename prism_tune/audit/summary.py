"""The numbers of an audit: findings by reason and by source, and token lengths.

Shape legend: N usable records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.audit.hints import HINTS
from prism_tune.data.policy import REASONS, decide
from prism_tune.data.records import Pool
from prism_tune.data.screening import Findings
from prism_tune.schema import Skipped

_SHORTEST_EDGE = 64
_VERDICTS = ("fail", "skip", "keep")


@dataclass(frozen=True)
class ListedFinding:
    """One reason found in one record.

    `record` is its index in the pool; negative, and different, for records that cannot be read.
    """

    record: int
    item: Skipped
    source: str


def list_findings(pool: Pool, findings: Findings) -> list[ListedFinding]:
    """All of them: records that cannot be read first, then in the order of the pool."""
    unreadable = [
        ListedFinding(-number, item, source)
        for number, (item, source) in enumerate(
            zip(pool.skipped, pool.skipped_sources, strict=True), start=1
        )
    ]
    return unreadable + [
        ListedFinding(index, item, pool.sources[index])
        for index, items in findings.items()
        for item in items
    ]


def summarise_reasons(
    findings: Sequence[ListedFinding], policy: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """{reason: policy, records, per_source, hint, list}, only of what was found."""
    summary: dict[str, dict[str, Any]] = {}
    for reason in REASONS:
        found = [finding for finding in findings if finding.item.reason == reason]
        if found:
            summary[reason] = {
                "policy": decide(reason, policy),
                "records": len({finding.record for finding in found}),
                "per_source": _count_sources(found),
                "hint": HINTS[reason],
                "list": f"{reason}.jsonl",
            }
    return summary


def summarise_sources(
    pool: Pool, findings: Sequence[ListedFinding], policy: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """{source: records, fail, skip, keep}; a record counts once, by its worst verdict."""
    worst: dict[int, tuple[str, str]] = {}
    for finding in findings:
        verdict = decide(finding.item.reason, policy)
        known = worst.get(finding.record, (finding.source, "keep"))[1]
        worst[finding.record] = (finding.source, min(verdict, known, key=_VERDICTS.index))
    records = Counter([*pool.sources, *pool.skipped_sources])
    counts = Counter(worst.values())
    return {
        source: {"records": num, **{v: counts[source, v] for v in _VERDICTS}}
        for source, num in sorted(records.items())
    }


def count_image_records(
    pool: Pool, findings: Sequence[ListedFinding], policy: Mapping[str, str]
) -> dict[str, int]:
    """{num_image_records, num_alone_in_source}, of the records that are not left out.

    What is alone in its source cannot be told apart from the rest of it.
    """
    left_out = {f.record for f in findings if decide(f.item.reason, policy) != "keep"}
    usable = [n for n in np.flatnonzero(~pool.is_text_only_N).tolist() if n not in left_out]
    sizes = Counter(pool.sources[index] for index in usable)
    alone = sum(size == 1 for size in sizes.values())
    return {"num_image_records": len(usable), "num_alone_in_source": alone}


def summarise_lengths(
    lengths_N: NDArray[np.int64], max_length: int, num_unusable: int
) -> dict[str, Any]:
    """Tokens of the records, image tokens included; longer ones are cut where that is possible."""
    num_longer = int((lengths_N > max_length).sum())
    longest = int(lengths_N.max(initial=0))
    edges = [0, _SHORTEST_EDGE]
    while edges[-1] < longest:
        edges.append(2 * edges[-1])
    edges = sorted({*edges, *([max_length] if max_length < edges[-1] else [])})
    # (a, b]: a record of exactly max_length tokens is not cut.
    places = np.searchsorted(edges, lengths_N, side="left")
    return {
        "max_length": max_length,
        "mean": round(float(lengths_N.mean()), 1) if len(lengths_N) else 0.0,
        "median": float(np.median(lengths_N)) if len(lengths_N) else 0.0,
        "longest": longest,
        "num_cut": num_longer - num_unusable,
        "num_unusable": num_unusable,
        "histogram": [
            {"over": low, "up_to": high, "records": int((places == number).sum())}
            for number, (low, high) in enumerate(pairwise(edges), start=1)
        ],
    }


def _count_sources(findings: Sequence[ListedFinding]) -> dict[str, int]:
    """Records, not findings: a record with two missing images counts once."""
    distinct = {finding.record: finding.source for finding in findings}
    return dict(sorted(Counter(distinct.values()).items()))
