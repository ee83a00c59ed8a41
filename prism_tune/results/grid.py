"""Selectors side by side: the runs of a comparison in, a row per budget and selector out.

The rows are plain values, for comparison.json; `grid_text.py` and `figure.py` show them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from prism_tune.config.sections import CompareConfig
from prism_tune.errors import ConfigError
from prism_tune.intervals import difference, spread
from prism_tune.results.columns import Column, ColumnSet
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import StageName, cost_ratio, device_names, row_mean
from prism_tune.results.overlap import (
    Plant,
    measure_overlap,
    read_planted,
    removed_shares,
    repeated_share,
)
from prism_tune.results.records import RecordTable
from prism_tune.results.rows import Row
from prism_tune.results.runs import FinishedRun

Found = dict[str, Any]
Choices = Mapping[int, RecordTable]
"""By seed."""


@dataclass(frozen=True)
class GridRow:
    """One selector at one budget (None: the whole pool): what has finished, and what has failed.

    `failures` are messages by seed; `num_runs` counts those that have not been run as well.
    """

    selector: str
    budget: float | int | None
    runs: tuple[FinishedRun, ...]
    failures: Mapping[int, str | None]
    num_runs: int


def build_grid(name: str, wanted: CompareConfig, rows: Sequence[GridRow]) -> Found:
    """Everything the comparison found in its finished runs.

    Raises:
        ConfigError: a metric that the results do not have.
        UserError: a planted record that does not exist, or files that are missing.
    """
    planted = read_planted(Path(wanted.planted)) if wanted.planted else {}
    shown = [Row(row.selector, row.runs) for row in rows]
    pairs = list(zip(rows, shown, strict=True))
    baselines = {row.budget: own for row, own in pairs if row.selector == wanted.baseline}
    comparison = Comparison(
        tuple(row for row in shown if row.runs),
        ColumnSet("compare", tuple(_make_column(name) for name in wanted.metrics)),
        {own: baselines.get(row.budget) for row, own in pairs}.get,
    )
    _check_metrics(comparison)
    choices = [_read_choices(row) for row in rows]
    built = [
        _build_row(row, own, comparison, chosen) | _describe_planted(chosen, planted)
        for (row, own), chosen in zip(pairs, choices, strict=True)
    ]
    return {
        "name": name,
        "metrics": wanted.metrics,
        "baseline": wanted.baseline,
        "seeds": wanted.seeds,
        "num_processes": wanted.num_processes,
        "devices": list(device_names(comparison.rows)),
        "num_cells": sum(row.num_runs for row in rows),
        "num_finished": sum(len(row.runs) for row in rows),
        "rows": built,
        "overlap": {f"{b:g}": _overlap(b, rows, choices) for b in wanted.budgets},
    }


def _make_column(name: str) -> Column:
    benchmark, _, metric = name.partition(".")
    return Column(name, benchmark, (metric,))


def _check_metrics(comparison: Comparison) -> None:
    for column in comparison.columns.columns:
        (metric,) = column.metrics
        for run in (run for row in comparison.rows for run in row.runs):
            result = run.results.get(column.benchmark)
            if result is None:
                raise ConfigError(
                    f"compare.metrics: {column.label}: {column.benchmark} is not in "
                    "evaluation.benchmarks"
                )
            if result.metrics.get(metric) is None:
                raise ConfigError(
                    f"compare.metrics: {column.label}: {column.benchmark} has "
                    f"{', '.join(result.metrics)}"
                )


def _read_choices(row: GridRow) -> Choices:
    if row.budget is None:
        return {}
    return {run.config.seed: run.records for run in row.runs if run.records is not None}


def _build_row(row: GridRow, own: Row, comparison: Comparison, choices: Choices) -> Found:
    """One selector at one budget; what has not been measured is None.

    Args:
        row: its state.
        own: its runs.
        comparison: of all rows.
        choices: its subsets.
    """
    baseline = comparison.baseline_of(own)
    performances = comparison.performances(own)
    performance = spread(list(performances.values()))
    found = None
    if baseline is not None and row.selector != baseline.label:
        found = difference(performances, comparison.performances(baseline))
    return {
        "selector": row.selector,
        "budget": row.budget,
        "seeds_finished": sorted(performances),
        "failures": {str(seed): message for seed, message in row.failures.items()},
        "performance": asdict(performance) if performance else None,
        "performances": {str(seed): value for seed, value in sorted(performances.items())},
        "metrics": {k: v for k, v in comparison.mean_scores(own).items() if v is not None},
        "difference": asdict(found) if found else None,
        "select_seconds": _mean_seconds(own, "selection"),
        "tune_seconds": _mean_seconds(own, "training"),
        "cost": cost_ratio(comparison, own) if own.runs else None,
        "sources": _mean_of([choice.source_shares() for choice in choices.values()]),
    }


def _mean_seconds(row: Row, stage: StageName) -> float | None:
    """Device-seconds; a stage that did not have to run took none."""
    return (row_mean(row, stage) or 0.0) if row.runs else None


def _describe_planted(choices: Choices, planted: Mapping[str, Plant]) -> Found:
    if not planted or not choices:
        return {}
    return {
        "removed": _mean_of([removed_shares(choice, planted) for choice in choices.values()]),
        "repeated": _mean([repeated_share(choice, planted) for choice in choices.values()]),
    }


def _overlap(
    budget: float | int, rows: Sequence[GridRow], choices: Sequence[Choices]
) -> dict[str, dict[str, float | None]]:
    """Jaccard of the subsets of two selectors under the same seed, mean over seeds."""
    kept = {
        row.selector: of_row
        for row, of_row in zip(rows, choices, strict=True)
        if row.budget == budget
    }
    table: dict[str, dict[str, float | None]] = {name: {} for name in kept}
    for a, b in combinations_with_replacement(kept, 2):
        seeds = sorted(kept[a].keys() & kept[b].keys())
        pairs = [measure_overlap(kept[a][seed], kept[b][seed]) for seed in seeds]
        table[a][b] = table[b][a] = _mean([pair.jaccard for pair in pairs])
    return table


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _mean_of(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Key by key; the tables have the same keys."""
    if not tables:
        return {}
    return {key: statistics.fmean(table[key] for table in tables) for key in tables[0]}
