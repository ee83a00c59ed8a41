"""Selectors side by side: the runs of a comparison in, a row per budget and selector out.

The rows are plain values, for comparison.json; `grid_text.py` and `figure.py` show them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from prism_tune.config.budget_words import budget_key
from prism_tune.config.sections import CompareConfig
from prism_tune.errors import ConfigError
from prism_tune.intervals import (
    Difference,
    detectable_difference,
    difference,
    spread,
    student_t_975,
)
from prism_tune.results.columns import Column, ColumnSet, scale_in_percent
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import StageName, cost_ratio, device_names, row_mean
from prism_tune.results.notes import batch_notes, say_verdict, stale_notes, unranked_notes
from prism_tune.results.overlap import (
    Plant,
    measure_overlap,
    read_planted,
    removed_shares,
    repeated_share,
)
from prism_tune.results.records import RecordTable
from prism_tune.results.relative import check_comparable
from prism_tune.results.render import format_budget
from prism_tune.results.rows import Row, find_full
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
        UserError: a planted record that does not exist, files that are missing, or results that
            were not measured alike.
    """
    planted = read_planted(Path(wanted.planted)) if wanted.planted else {}
    shown = [Row(row.selector, row.runs) for row in rows]
    pairs = list(zip(rows, shown, strict=True))
    baselines = {row.budget: own for row, own in pairs if row.selector == wanted.baseline}
    finished = tuple(row for row in shown if row.runs)
    comparison = Comparison(
        finished,
        ColumnSet("compare", _make_columns(wanted.metrics, finished)),
        lambda row: find_full(row, finished),
    )
    _check_metrics(comparison)
    _check_alike(comparison)
    rel_metrics = _sort_metrics(comparison)
    choices = [_read_choices(row) for row in rows]
    built = [
        _build_row(row, own, comparison, baselines.get(row.budget))
        | {"sources": _mean_of([choice.source_shares() for choice in chosen.values()])}
        | _describe_planted(chosen, planted)
        for (row, own), chosen in zip(pairs, choices, strict=True)
    ]
    return {
        "name": name,
        "metrics": wanted.metrics,
        **rel_metrics,
        "baseline": wanted.baseline,
        "seeds": wanted.seeds,
        "num_processes": wanted.num_processes,
        "devices": list(device_names(comparison.rows)),
        "verdicts": [
            _say_at(budget, wanted) + say_verdict(verdict, comparison)
            for verdict in comparison.verdicts()
            for budget in [row.budget for row, own in pairs if own is verdict.row]
            if verdict.row.label != wanted.baseline
        ],
        "notes": [
            *(*stale_notes(finished), *unranked_notes(finished), *batch_notes(finished)),
            *_skip_notes(rel_metrics["skipped"]),
        ],
        "detectable": [one for b in wanted.budgets if (one := _find_detectable(b, built))],
        "num_cells": sum(row.num_runs for row in rows),
        "num_finished": sum(len(row.runs) for row in rows),
        "rows": built,
        "overlap": {budget_key(b): _overlap(b, rows, choices) for b in wanted.budgets},
    }


def _say_at(budget: float | int | None, wanted: CompareConfig) -> str:
    """Which budget a verdict is of, where there are several."""
    return "" if budget is None or len(wanted.budgets) == 1 else f"{format_budget(budget)}: "


def _make_columns(metrics: Sequence[str], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Fractions in percent, as `tables` has them."""
    results = [run.results for row in rows for run in row.runs]
    columns = []
    for name in metrics:
        benchmark, _, metric = name.partition(".")
        scale = scale_in_percent(benchmark, metric, results)
        columns.append(Column(name, benchmark, (metric,), scale))
    return tuple(columns)


def _sort_metrics(comparison: Comparison) -> Found:
    """What Rel. leaves out, and of the others those that its intervals over questions are over."""
    full = next((row for row in comparison.rows if row.first.is_full), None)
    if full is None:
        return {"skipped": [], "resampled": []}
    rel = comparison.relative(full, full)
    resampled = [name for name in rel.columns if name in comparison.resampled]
    return {"skipped": list(rel.skipped), "resampled": resampled}


def _skip_notes(skipped: Sequence[str]) -> list[str]:
    listed = ", ".join(f"`{name}`" for name in skipped)
    why = "on which the whole pool does not score above 0"
    return [f"Rel., its differences and C leave out {listed}, {why}."] if skipped else []


def _check_metrics(comparison: Comparison) -> None:
    for column in comparison.columns.columns:
        (metric,) = column.metrics
        for run in (run for row in comparison.rows for run in row.runs):
            result = run.results.get(column.benchmark)
            if result is None:
                raise ConfigError(
                    f"compare.metrics: {column.label}: no results of {column.benchmark} in "
                    f"{run.root}; `prism-tune compare` answers it again"
                )
            if result.metrics.get(metric) is None:
                raise ConfigError(
                    f"compare.metrics: {column.label}: {column.benchmark} has "
                    f"{', '.join(result.metrics)}"
                )


def _check_alike(comparison: Comparison) -> None:
    """As `tables` does."""
    shown = set(comparison.columns.benchmarks)
    check_comparable(
        {
            run.root.name: {k: v for k, v in run.results.items() if k in shown}
            for row in comparison.rows
            for run in row.runs
        }
    )


def _read_choices(row: GridRow) -> Choices:
    if row.budget is None:
        return {}
    return {run.config.seed: run.records for run in row.runs if run.records is not None}


def _build_row(row: GridRow, own: Row, comparison: Comparison, other: Row | None) -> Found:
    """One selector at one budget; what has not been measured is None.

    Args:
        row: its state.
        own: its runs.
        comparison: of all rows; its baseline is the whole pool.
        other: the row of `compare.baseline` at this budget.
    """
    performances = comparison.performances(own)
    performance = spread(list(performances.values()))
    full = comparison.baseline_of(own) if own.runs else None
    found = against = None
    if other is not None and row.selector != other.label and row.budget is not None:
        found = difference(performances, comparison.performances(other))
        if full is not None and other.runs:
            against = comparison.difference(own, other, full)
    return {
        "selector": row.selector,
        "budget": row.budget,
        "seeds_finished": sorted(performances),
        "failures": {str(seed): message for seed, message in row.failures.items()},
        "performance": asdict(performance) if performance else None,
        "performances": {str(seed): value for seed, value in sorted(performances.items())},
        "metrics": {k: v for k, v in comparison.mean_scores(own).items() if v is not None},
        "difference": asdict(found) if found else None,
        "relative": _measure_relative(comparison, own, full) if full else None,
        "relative_difference": asdict(against) if against else None,
        "select_seconds": _mean_seconds(own, "selection"),
        "tune_seconds": _mean_seconds(own, "training"),
        "cost": cost_ratio(comparison, own) if own.runs else None,
    }


def _measure_relative(comparison: Comparison, row: Row, full: Row) -> Found:
    """Rel. against the whole pool; its interval over seeds where there are several."""
    interval, over = comparison.seeds_interval(row, full), "seeds"
    if interval is None:
        interval, over = comparison.interval(row, full), "questions"
    value = comparison.relative(row, full).value
    return {"value": value, "interval": interval, "over": None if interval is None else over}


def _find_detectable(budget: float | int, rows: Sequence[Found]) -> Found | None:
    """What the budget's seeds can tell from the baseline, by the differences' common spread.

    `points` is None where no difference differs over the seeds: they say nothing of their spread.
    """
    at = [row for row in rows if row["budget"] == budget]
    of_rel = [row["relative_difference"]["seeds"] for row in at if row["relative_difference"]]
    unit = "Rel." if of_rel else "P"
    given = of_rel or [row["difference"] for row in at if row["difference"]]
    paired = [one for one in (Difference(**one) for one in given) if one.num_seeds >= 2]
    if not paired:
        return None
    num_seeds = min(one.num_seeds for one in paired)
    varying = [one for one in paired if one.low != one.high]
    points = None
    if varying:
        variance = statistics.fmean(_sd(one) ** 2 for one in varying)
        points = detectable_difference(math.sqrt(variance), num_seeds)
    return {"budget": budget, "points": points, "of": unit, "num_seeds": num_seeds}


def _sd(paired: Difference) -> float:
    """Of the differences, out of their interval."""
    assert paired.low is not None
    assert paired.high is not None
    half = (paired.high - paired.low) / 2
    return half * math.sqrt(paired.num_seeds) / student_t_975(paired.num_seeds - 1)


def _mean_seconds(row: Row, stage: StageName) -> float | None:
    """Device-seconds; a stage that did not have to run took none, one not metered is unknown."""
    if not row.runs:
        return None
    had_to = row.first.is_selected if stage == "selection" else not row.first.is_untuned
    return row_mean(row, stage) if had_to else 0.0


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
