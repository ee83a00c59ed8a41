"""Which short answers each source has, and which of them a selection kept.

Records go in; a table comes out: of each source the most frequent first answers of at most three
words, and all others together, with their shares of the pool and of the subset.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from prism_tune.report.numbers import count, percent
from prism_tune.schema import Record

HEADER = ("Source", "First answer", "Pool", "Kept", "of the pool", "of the subset", "Change")

_MOST_WORDS, _MOST_CHARACTERS = 3, 24
_MOST_ANSWERS, _MOST_SOURCES = 5, 12
_FEWEST = 5  # records: an answer given less often says nothing of a balance
_OTHER = "(others, and longer ones)"


@dataclass
class AnswerCounts:
    """Records by (source, answer), "" for a longer one: all of them, and the kept ones."""

    pool: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, record: Record, *, is_kept: bool) -> None:
        """Count one record."""
        key = (record.source, normalise_answer(record))
        self.pool[key] += 1
        if is_kept:
            self.kept[key] += 1

    def merge(self, other: AnswerCounts) -> None:
        """Count what another has counted."""
        self.pool.update(other.pool)
        self.kept.update(other.kept)


def normalise_answer(record: Record) -> str:
    """The first answer in small letters, without what surrounds it; "" for a longer one or none."""
    text = next((turn.text for turn in record.turns if turn.role == "gpt"), "")
    if len(text) > _MOST_CHARACTERS or len(text.split()) > _MOST_WORDS:
        return ""
    return re.sub(r"^[\W_]+|[\W_]+$", "", " ".join(text.lower().split()))


def list_balance(counts: AnswerCounts) -> list[tuple[str, ...]]:
    """Rows below `HEADER`: the largest sources, their answers by frequency, the others last."""
    of_source: dict[str, list[str]] = defaultdict(list)
    for (source, answer), number in counts.pool.most_common():
        if answer and number >= _FEWEST and len(of_source[source]) < _MOST_ANSWERS:
            of_source[source].append(answer)
    totals: Counter[str] = Counter()
    kept_totals: Counter[str] = Counter()
    for key, number in counts.pool.items():
        totals[key[0]] += number
        kept_totals[key[0]] += counts.kept[key]
    rows = []
    for source, total in totals.most_common(_MOST_SOURCES):
        listed = of_source[source]
        if not listed:
            continue
        known = [(counts.pool[source, answer], counts.kept[source, answer]) for answer in listed]
        rest = (
            total - sum(pool for pool, _ in known),
            kept_totals[source] - sum(kept for _, kept in known),
        )
        for answer, (pool, kept) in zip([*listed, _OTHER], [*known, rest], strict=True):
            rows.append(_row(source, answer, (pool, total), (kept, kept_totals[source])))
    return rows


def _row(source: str, answer: str, pool: tuple[int, int], kept: tuple[int, int]) -> tuple[str, ...]:
    share, kept_share = pool[0] / pool[1], kept[0] / max(kept[1], 1)
    change = f"{100 * (kept_share - share):+.1f}"
    shares = (percent(share), percent(kept_share)) if kept[1] else (percent(share), percent(None))
    return (source, answer, count(pool[0]), count(kept[0]), *shares, change if kept[1] else "")
