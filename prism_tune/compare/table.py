"""Cells in, the comparison out: one row per budget and selector, as plain values for JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from prism_tune.compare.cells import WHOLE_POOL, Budget, Cell, require_section
from prism_tune.compare.planted import Plant, read_planted, removed_shares, repeated_share
from prism_tune.compare.results import Outcome, jaccard, read_outcome
from prism_tune.config.sections import CompareConfig, Config
from prism_tune.intervals import paired_difference, spread

Row = dict[str, Any]
Outcomes = Mapping[int, Outcome]
"""By seed."""


def build_comparison(config: Config, cells: Sequence[Cell]) -> dict[str, Any]:
    """Everything the comparison found in its finished cells.

    Raises:
        UserError: a metric or a planted record that does not exist, or files that are missing.
    """
    wanted = require_section(config)
    planted = read_planted(Path(wanted.planted)) if wanted.planted else {}
    groups: dict[tuple[Budget | None, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.budget, cell.selector), []).append(cell)
    outcomes = {
        place: {
            cell.seed: read_outcome(cell, wanted.metrics)
            for cell in members
            if cell.state() == "finished"
        }
        for place, members in groups.items()
    }
    full = outcomes.get((None, WHOLE_POOL), {})
    rows = [
        _build_row(members, outcomes[place], outcomes.get((place[0], wanted.baseline), {}), full)
        | _describe_planted(outcomes[place], planted)
        for place, members in groups.items()
    ]
    devices = sorted({d for found in outcomes.values() for o in found.values() for d in o.devices})
    return {
        "name": config.name,
        "metrics": wanted.metrics,
        "baseline": wanted.baseline,
        "seeds": wanted.seeds,
        "num_processes": wanted.num_processes,
        "devices": devices,
        "num_cells": len(cells),
        "num_finished": sum(len(found) for found in outcomes.values()),
        "rows": rows,
        "overlap": {f"{budget:g}": _overlap(budget, wanted, outcomes) for budget in wanted.budgets},
    }


def _build_row(
    cells: Sequence[Cell], outcomes: Outcomes, baseline: Outcomes, full: Outcomes
) -> Row:
    """One selector at one budget; what has not been measured is None."""
    performance = spread([outcome.performance for outcome in outcomes.values()])
    own, other = (
        {seed: o.performance for seed, o in found.items()} for found in (outcomes, baseline)
    )
    is_baseline = bool(outcomes) and outcomes == baseline
    difference = None if is_baseline else paired_difference(own, other)
    return {
        "selector": cells[0].selector,
        "budget": cells[0].budget,
        "seeds_finished": sorted(outcomes),
        "failures": {str(c.seed): c.error() for c in cells if c.state() == "failed"},
        "performance": asdict(performance) if performance else None,
        "performances": {str(seed): value for seed, value in sorted(own.items())},
        "metrics": _mean_of([outcome.metrics for outcome in outcomes.values()]),
        "difference": asdict(difference) if difference else None,
        "select_seconds": _mean([outcome.select_seconds for outcome in outcomes.values()]),
        "tune_seconds": _mean([outcome.tune_seconds for outcome in outcomes.values()]),
        "cost": _selection_cost(outcomes, full),
        "sources": _mean_of([o.kept.source_shares() for o in outcomes.values() if o.kept]),
    }


def _selection_cost(outcomes: Outcomes, full: Outcomes) -> float | None:
    """C = P(full) / P x (T_select + T_tune) / T_tune(full), over the means; None without full."""
    if not outcomes or not full:
        return None
    performance = statistics.fmean(outcome.performance for outcome in outcomes.values())
    best = statistics.fmean(outcome.performance for outcome in full.values())
    seconds = statistics.fmean(o.select_seconds + o.tune_seconds for o in outcomes.values())
    full_seconds = statistics.fmean(outcome.tune_seconds for outcome in full.values())
    if performance <= 0 or full_seconds <= 0:
        return None
    return best / performance * seconds / full_seconds


def _describe_planted(outcomes: Outcomes, planted: Mapping[str, Plant]) -> Row:
    kept = [outcome.kept for outcome in outcomes.values() if outcome.kept]
    if not planted or not kept:
        return {}
    return {
        "removed": _mean_of([removed_shares(subset, planted) for subset in kept]),
        "repeated": _mean([repeated_share(subset, planted) for subset in kept]),
    }


def _overlap(
    budget: Budget, wanted: CompareConfig, outcomes: Mapping[Any, Outcomes]
) -> dict[str, dict[str, float | None]]:
    """Jaccard of the subsets of two selectors under the same seed, mean over seeds."""
    names = [name for place, name in outcomes if place == budget]
    table: dict[str, dict[str, float | None]] = {name: {} for name in names}
    for a, b in product(names, names):
        if b in table and a in table[b]:
            table[a][b] = table[b][a]
            continue
        found_a, found_b = outcomes[budget, a], outcomes[budget, b]
        pairs = [
            (found_a[s].kept, found_b[s].kept)
            for s in wanted.seeds
            if _both(s, a=found_a, b=found_b)
        ]
        table[a][b] = _mean([jaccard(x, y) for x, y in pairs if x and y])
    return table


def _both(seed: int, *, a: Outcomes, b: Outcomes) -> bool:
    return seed in a and seed in b


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _mean_of(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Key by key; the tables have the same keys."""
    if not tables:
        return {}
    return {key: statistics.fmean(table[key] for table in tables) for key in tables[0]}
