"""Which row is compared with which: the baseline of Rel., and the Random row beside a selector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prism_tune.errors import UserError
from prism_tune.results.rows import Row
from prism_tune.results.variants import find_variant

BaselineRule = Literal["whole pool", "per model", "prism"]
_PAPER_BUDGET = 0.30


def choose_baseline(rows: Sequence[Row], name: str | None, rule: BaselineRule) -> Row:
    """The row Rel. = 100 refers to.

    Args:
        rows: at least one.
        name: a run's name or folder, given by the user; None leaves it to the rule.
        rule: "whole pool": the first of whole pool, Random, untuned, any; "prism": the first PRISM
            row as the paper has it, else as before.

    Raises:
        UserError: no run of that name.
    """
    if name is not None:
        return _named(rows, name)
    candidates = [
        *(_papers_own(rows) if rule == "prism" else []),
        *[row for row in rows if row.first.is_full],
        *[row for row in rows if row.is_random],
        *[row for row in rows if row.first.is_untuned],
        *rows,
    ]
    return candidates[0]


def same_model(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The rows that start from the same model."""
    return [other for other in rows if other.first.config.model == row.first.config.model]


def random_beside(row: Row, rows: Sequence[Row]) -> Row | None:
    """The Random row of the same model and tuning; of the same budget where there is one."""
    own = row.first.config
    candidates = [
        other
        for other in same_model(row, rows)
        if other.is_random and other.first.config.training.tuning == own.training.tuning
    ]
    same_budget = [
        other for other in candidates if other.first.config.selection.budget == own.selection.budget
    ]
    return next(iter([*same_budget, *candidates]), None)


def _named(rows: Sequence[Row], name: str) -> Row:
    for row in rows:
        if any(name.rstrip("/") in (run.name, str(run.root)) for run in row.runs):
            return row
    known = ", ".join(run.name for row in rows for run in row.runs)
    raise UserError(f"--baseline {name}: not one of the given runs ({known})")


def _papers_own(rows: Sequence[Row]) -> list[Row]:
    """The PRISM rows of the paper's setting, those of its budget first."""
    own = [
        row
        for row in rows
        if row.first.is_selected
        and row.first.config.selection.scorer == "prism"
        and not find_variant(row.first)
    ]
    return sorted(own, key=lambda row: row.first.config.selection.budget != _PAPER_BUDGET)
