"""Numbers shared by the benchmarks: percentages, groups, and counts of a yes-or-no task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Group = TypeVar("Group", bound=Hashable)
Outcome = tuple[Literal["yes", "no"], str | None]
"""Reference, and what an answer was parsed to: "yes", "no", something else, or None (no answer)."""


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; 0 for nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def percent(credits: Iterable[float]) -> float:
    """Mean credit in percent: sum / count x 100, in that order, as the official scripts do."""
    return mean(credits) * 100


def group_credits(
    credits: Mapping[str, float], groups: Mapping[str, Group]
) -> dict[Group, list[float]]:
    """Credits by group, groups in order of first appearance."""
    grouped: dict[Group, list[float]] = defaultdict(list)
    for key, group in groups.items():
        grouped[group].append(credits[key])
    return dict(grouped)


@dataclass(frozen=True)
class YesNoCounts:
    """Confusion counts of a yes-or-no task, "yes" the positive class.

    `num_missed` are positives answered neither yes nor no, or not at all.
    """

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    num_missed: int
    num_questions: int
    num_answered: int

    @property
    def accuracy(self) -> float:
        """Right answers over all questions."""
        return ratio(self.true_positive + self.true_negative, self.num_questions)

    @property
    def precision(self) -> float:
        """Of the answers "yes", the right ones; 0 when there are none."""
        return ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Of the positives, those answered "yes"."""
        positives = self.true_positive + self.false_negative + self.num_missed
        return ratio(self.true_positive, positives)

    @property
    def yes_ratio(self) -> float:
        """Of the answers, those that are "yes"."""
        return ratio(self.true_positive + self.false_positive, self.num_answered)


def count_yes_no(outcomes: Sequence[Outcome]) -> YesNoCounts:
    """Confusion counts of (reference, parsed answer) pairs."""
    return YesNoCounts(
        true_positive=outcomes.count(("yes", "yes")),
        false_positive=outcomes.count(("no", "yes")),
        true_negative=outcomes.count(("no", "no")),
        false_negative=outcomes.count(("yes", "no")),
        num_missed=sum(gold == "yes" and answer not in ("yes", "no") for gold, answer in outcomes),
        num_questions=len(outcomes),
        num_answered=sum(answer is not None for _, answer in outcomes),
    )


def f1_score(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return ratio(2 * precision * recall, precision + recall)


def ratio(numerator: float, denominator: float) -> float:
    """Numerator / denominator; 0 where the denominator is 0."""
    return numerator / denominator if denominator else 0.0
