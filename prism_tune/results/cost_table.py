"""The `cost` table: what selecting and tuning took, C, and what a selection may cost at most."""

from __future__ import annotations

from collections.abc import Sequence

from prism_tune.results.baselines import random_beside
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import (
    FullTuning,
    break_even_seconds,
    device_names,
    find_full,
    full_tuning,
    row_mean,
    row_seconds,
    spans_devices,
)
from prism_tune.results.notes import gather_rows
from prism_tune.results.render import MISSING, Cell, Table, duration_cell, number_cell
from prism_tune.results.rows import Row
from prism_tune.results.scores import cost_ratio, runs_cell

_HEADER = (
    "Method", "Run", "T_select", "T_tune(sub)", "T_tune(full)", "select / full, %",
    "total / full", "P", "C", "break-even T_select", "FLOPs select", "FLOPs tune", "energy",
)  # fmt: skip
_JOULES_PER_KWH = 3.6e6


def build_cost_table(comparison: Comparison, column_note: str) -> Table:
    """One row for each subset a run was tuned on."""
    selected = [row for row in comparison.rows if row.first.is_selected]
    return Table(
        title=f"Cost, columns `{comparison.columns.name}`",
        header=_HEADER,
        rows=tuple(_cost_cells(comparison, row) for row in selected),
        notes=(
            column_note,
            "T: device time (wall x devices), resumed attempts included. total = T_select + "
            "T_tune(sub). P = Rel. / 100 against the run on the whole pool; C = total / full / P.",
            "break-even T_select: the selection time at which C equals Random's; negative where "
            "not even a free selection pays.",
            "FLOPs: estimated from the model's architecture and the metered tokens and images. "
            "Energy: of the GPUs, selecting and tuning; n/a where NVML gives none.",
            *_full_notes(selected, comparison.rows),
            *_reference_notes(comparison, selected),
        ),
    )


def _cost_cells(comparison: Comparison, row: Row) -> tuple[Cell, ...]:
    select, tune = row_seconds(row, "selection"), row_seconds(row, "training")
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
        _energy_cell(row),
    )


def _full_cell(whole: FullTuning | None) -> Cell:
    if whole is None:
        return Cell(MISSING)
    cell = duration_cell(whole.seconds)
    return cell if whole.measured else Cell(f"{cell.text} (extrapolated)", cell.value)


def _flops_cell(flops: float | None) -> Cell:
    return Cell(MISSING) if flops is None else Cell(f"{flops:.2e}", flops)


def _energy_cell(row: Row) -> Cell:
    """Of selecting and tuning together."""
    joules = [row_mean(row, stage, "energy_joules") for stage in ("selection", "training")]
    known = [value for value in joules if value is not None]
    if len(known) < len(joules):
        return Cell(MISSING)
    return Cell(f"{sum(known) / _JOULES_PER_KWH:.3g} kWh", sum(known))


def _break_even_cell(comparison: Comparison, row: Row) -> Cell:
    other = random_beside(row, comparison.rows)
    if other is None or other is row or spans_devices((row, other)):
        return Cell(MISSING)
    reference = find_full(row, comparison.rows) or other
    mine = comparison.relative(row, reference)
    theirs = comparison.relative(other, reference)
    tune = row_seconds(row, "training")
    spent = [row_seconds(other, "selection"), row_seconds(other, "training")]
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
    if not lacking:
        return []
    return [
        f"{', '.join(lacking)}: no run on the whole pool, so P and C are n/a, and break-even takes "
        "performance relative to Random."
    ]
