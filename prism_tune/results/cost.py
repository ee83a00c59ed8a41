"""What a selection costs and whether it pays, from the metered times of the runs.

Times are device-seconds, summed over resumed attempts. Overall selection cost (the paper's):
C = P(full) / P(subset) x (T_select + T_tune(subset)) / T_tune(full), with P = Rel. / 100 against
the run tuned on the whole pool, so that P(full) = 1. A selector pays only where C < 1.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prism_tune.config.epochs import num_epochs
from prism_tune.errors import UserError
from prism_tune.results.comparison import Comparison
from prism_tune.results.notes import (
    full_of_another_length,
    gather_rows,
    stale_notes,
    unranked_notes,
)
from prism_tune.results.render import MISSING, Cell, Table, duration_cell, number_cell
from prism_tune.results.rows import Row, find_full, is_tuned_as_long, random_beside

StageName = Literal["selection", "training"]
_HEADER = (
    "Method", "Run", "T_select", "T_tune(sub)", "T_tune(full)", "select / full, %",
    "total / full", "P", "C", "break-even T_select", "FLOPs select", "FLOPs tune",
)  # fmt: skip


@dataclass(frozen=True)
class FullTuning:
    """T_tune(full): measured on a run, or extrapolated (`how` says from what)."""

    seconds: float
    measured: bool
    how: str


def row_mean(row: Row, stage: StageName, quantity: str = "device_seconds") -> float | None:
    """Mean over the row's runs of a stage's total; None where one of them lacks it."""
    values = [run.total(stage, quantity) for run in row.runs]
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if len(present) == len(values) else None


def spans_devices(rows: Sequence[Row]) -> bool:
    """Whether the rows were metered on different devices, whose seconds do not compare."""
    return len(device_names(rows)) > 1


def device_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """The devices selection and tuning ran on."""
    names = {
        str(entry["device"])
        for row in rows
        for run in row.runs
        for entry in (*run.attempts("selection"), *run.attempts("training"))
    }
    return tuple(sorted(names))


def full_tuning(row: Row, rows: Sequence[Row]) -> FullTuning | None:
    """T_tune(full) for a subset's row; None where neither measured nor derivable."""
    full = find_full(row, rows)
    if full is not None and is_tuned_as_long(row, full) and not spans_devices((row, full)):
        measured = row_mean(full, "training")
        if measured is not None:
            return FullTuning(measured, True, f"measured on {full.names}")
    return _extrapolate(row)


def _extrapolate(row: Row) -> FullTuning | None:
    """As much longer as the pool has more tokens than the subset; of fixed steps as long.

    Both are gone over as often, with the same share held out. Without counts of tokens, by records:
    a selector that keeps short records then looks cheaper.
    """
    seconds, manifest = row_mean(row, "training"), row.first.manifest
    if seconds is None or manifest is None:
        return None
    if num_epochs(row.first.config.training.hf) is None:
        return FullTuning(seconds, False, "extrapolated: the same max_steps")
    unit = "token"
    counts = manifest.get("num_tokens", {})
    if not counts.get("selected"):
        unit, counts = "record", {k: int(manifest[f"num_{k}"]) for k in ("pool", "selected")}
    how = f"extrapolated: seconds per {unit} x {counts['pool']:,} {unit}s of the pool"
    return FullTuning(seconds * counts["pool"] / counts["selected"], False, how)


def selection_cost(
    performance: float, select_seconds: float, tune_seconds: float, full_seconds: float
) -> float:
    """C; `performance` is P(subset) / P(full), 1.017 for the paper's PRISM."""
    return (select_seconds + tune_seconds) / full_seconds / performance


def break_even_seconds(
    performance: float, tune_seconds: float, random_performance: float, random_seconds: float
) -> float:
    """The T_select at which C equals Random's; negative where not even a free selection pays.

    Args:
        performance: P(subset).
        tune_seconds: T_tune(subset).
        random_performance: P(random subset).
        random_seconds: T_select + T_tune of the random subset.
    """
    return performance / random_performance * random_seconds - tune_seconds


def cost_ratio(comparison: Comparison, row: Row) -> float | None:
    """C of a row; None unless the whole pool was tuned on, evaluated and metered, and for P = 0.

    The whole pool's run has to be of as many epochs or steps.
    """
    if row.first.is_full:
        return 1.0
    full = find_full(row, comparison.rows)
    if full is None or not row.first.is_selected or spans_devices((row, full)):
        return None
    performance = comparison.relative(row, full).value
    select, tune = row_mean(row, "selection"), row_mean(row, "training")
    whole = full_tuning(row, comparison.rows)
    if not performance or select is None or tune is None or whole is None or not whole.measured:
        return None
    return selection_cost(performance / 100, select, tune, whole.seconds)


def runs_cell(row: Row) -> Cell:
    """The runs behind a row."""
    return Cell(row.names, names=tuple(run.name for run in row.runs))


def build_cost_table(comparison: Comparison, column_note: str) -> Table:
    """One row for each subset a run was tuned on; UserError for none."""
    selected = [row for row in comparison.rows if row.first.is_selected]
    if not selected:
        raise UserError(
            "tables cost: none of the given runs was tuned on a subset; "
            "name at least one such run folder with --runs"
        )
    return Table(
        title=f"Cost, columns `{comparison.columns.name}`",
        header=_HEADER,
        rows=tuple(_cost_cells(comparison, row) for row in selected),
        notes=(
            *stale_notes(comparison.rows),
            *unranked_notes(comparison.rows),
            column_note,
            "T: device time (wall x devices), resumed attempts included. total = T_select + "
            "T_tune(sub). P = Rel. / 100 against the run on the whole pool; C = total / full / P.",
            "break-even T_select: the selection time at which C equals Random's; negative where "
            "not even a free selection pays.",
            "FLOPs: estimated from the model's architecture and the metered tokens and images.",
            *_full_notes(selected, comparison.rows),
            *_reference_notes(comparison, selected),
        ),
    )


def _cost_cells(comparison: Comparison, row: Row) -> tuple[Cell, ...]:
    select, tune = row_mean(row, "selection"), row_mean(row, "training")
    whole = full_tuning(row, comparison.rows)
    share = total = None
    if whole is not None and select is not None and not spans_devices([row]):
        share = 100 * select / whole.seconds
        total = None if tune is None else (select + tune) / whole.seconds
    full = find_full(row, comparison.rows)
    performance = None if full is None else comparison.relative(row, full).value
    return (
        Cell(row.label),
        runs_cell(row),
        duration_cell(select),
        duration_cell(tune),
        _full_cell(whole),
        number_cell(share, digits=2),
        number_cell(total, digits=2),
        number_cell(None if performance is None else performance / 100, digits=3),
        number_cell(cost_ratio(comparison, row), digits=2),
        _break_even_cell(comparison, row),
        _flops_cell(row_mean(row, "selection", "flops")),
        _flops_cell(row_mean(row, "training", "flops")),
    )


def _full_cell(whole: FullTuning | None) -> Cell:
    if whole is None:
        return Cell(MISSING)
    cell = duration_cell(whole.seconds)
    return cell if whole.measured else Cell(f"{cell.text} (extrapolated)", cell.value)


def _flops_cell(flops: float | None) -> Cell:
    return Cell(MISSING) if flops is None else Cell(f"{flops:.2e}", flops)


def _break_even_cell(comparison: Comparison, row: Row) -> Cell:
    other = random_beside(row, comparison.rows)
    if other is None or other is row or spans_devices((row, other)):
        return Cell(MISSING)
    reference = find_full(row, comparison.rows) or other
    mine = comparison.relative(row, reference)
    theirs = comparison.relative(other, reference)
    tune = row_mean(row, "training")
    spent = [row_mean(other, "selection"), row_mean(other, "training")]
    known = [seconds for seconds in spent if seconds is not None]
    if mine.value is None or not theirs.value or mine.columns != theirs.columns:
        return Cell(MISSING)
    if tune is None or len(known) < len(spent):
        return Cell(MISSING)
    return duration_cell(break_even_seconds(mine.value, tune, theirs.value, sum(known)))


def _full_notes(selected: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    sources = {row.label: full_tuning(row, rows) for row in selected}
    how = {label: "" if whole is None else whole.how for label, whole in sources.items()}
    notes = [f"T_tune(full) of {labels}: {text}." for text, labels in gather_rows(how).items()]
    for row in selected:
        names = device_names([row])
        if len(names) > 1:
            notes.append(f"{row.label}: metered on {' and '.join(names)}: times do not compare.")
    return notes


def _reference_notes(comparison: Comparison, selected: Sequence[Row]) -> list[str]:
    lacking = [row.label for row in selected if find_full(row, comparison.rows) is None]
    apart = full_of_another_length(selected, comparison.rows)
    said = {
        "no run on the whole pool, so P and C are n/a, and break-even takes performance relative "
        "to Random.": lacking,
        "the run on the whole pool is of other epochs or steps, so C is n/a, and P is against it "
        "all the same.": apart,
    }
    return [f"{', '.join(labels)}: {text}" for text, labels in said.items() if labels]
