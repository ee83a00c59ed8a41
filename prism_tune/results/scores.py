"""A comparison in, the table of scores out: one row a configuration, Rel., counts, times and C."""

from __future__ import annotations

from collections.abc import Sequence

from prism_tune.intervals import spread
from prism_tune.results.columns import Column
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import cost_ratio, row_mean, runs_cell
from prism_tune.results.paper import PaperRow, PaperTable
from prism_tune.results.printed import beside_cells, paper_relative
from prism_tune.results.render import INAPPLICABLE, MISSING, Cell, duration_cell, number_cell
from prism_tune.results.rows import Row


def score_header(comparison: Comparison, *, with_paper: bool) -> tuple[str, ...]:
    """The headings, in the order of `score_cells`."""
    labels = [column.label for column in comparison.columns.columns]
    interval = "95 % CI"
    if 0 < len(comparison.resampled) < len(comparison.columns.scored):
        interval += f" ({', '.join(comparison.resampled)} only)"
    paper = ("Δ paper", "Rel. printed") if with_paper else ()
    return (
        "Method", "Run", "Kept", *labels, "Rel.", interval, *paper, "T_select", "T_tune", "C",
    )  # fmt: skip


def score_cells(comparison: Comparison, row: Row, paper: PaperTable | None) -> tuple[Cell, ...]:
    """The cells of one of our rows."""
    baseline = comparison.baseline_of(row)
    scores = [_score_cell(comparison, row, column) for column in comparison.columns.columns]
    beside = beside_cells(comparison, row, baseline, paper) if paper else ()
    return (
        Cell(row.label),
        runs_cell(row),
        _kept_cell(row),
        *scores,
        _relative_cell(comparison, row, baseline),
        _interval_cell(comparison, row, baseline),
        *beside,
        *_time_cells(row),
        _cost_cell(comparison, row),
    )


def paper_cells(row: PaperRow, table: PaperTable, columns: Sequence[Column]) -> tuple[Cell, ...]:
    """The cells of a printed row: its study, what that kept, and Rel. recomputed from its cells."""
    value = paper_relative(row, table, columns)
    num_blank = 3
    return (
        Cell(row.label),
        Cell(f"paper: {row.origin.study}"),
        Cell(row.origin.kept),
        *(number_cell(row.cells.get(column.label)) for column in columns),
        number_cell(value),
        Cell(MISSING),
        Cell(INAPPLICABLE),
        number_cell(row.printed_rel),
        *[Cell(MISSING)] * num_blank,
    )


def _score_cell(comparison: Comparison, row: Row, column: Column) -> Cell:
    values = comparison.values(row, column)
    found = spread(values or [])
    return number_cell(found.mean, sd=found.sd) if found else Cell(MISSING)


def _relative_cell(comparison: Comparison, row: Row, baseline: Row | None) -> Cell:
    if baseline is None:
        return Cell(MISSING)
    value = comparison.relative(row, baseline).value
    return number_cell(value, sd=None if value is None else comparison.relative_sd(row, baseline))


def _interval_cell(comparison: Comparison, row: Row, baseline: Row | None) -> Cell:
    if baseline is row:
        return Cell(INAPPLICABLE)
    interval = None if baseline is None else comparison.interval(row, baseline)
    if interval is None:
        return Cell(MISSING)
    low, high = interval
    return Cell(f"{low:.1f} to {high:.1f}", low=low, high=high)


def _kept_cell(row: Row) -> Cell:
    """Records tuned on / records of the pool."""
    run = row.first
    if run.is_untuned:
        return Cell(INAPPLICABLE)
    if run.manifest is not None:
        kept, total = int(run.manifest["num_selected"]), int(run.manifest["num_pool"])
        return Cell(f"{kept:,} / {total:,}", kept)
    if run.num_tuned is None:
        return Cell(MISSING)
    return Cell(f"{run.num_tuned:,} / {run.num_tuned:,}", run.num_tuned)


def _time_cells(row: Row) -> tuple[Cell, Cell]:
    select = Cell(INAPPLICABLE)
    if row.first.is_selected:
        select = duration_cell(row_mean(row, "selection"))
    if row.first.is_untuned:
        return select, Cell(INAPPLICABLE)
    return select, duration_cell(row_mean(row, "training"))


def _cost_cell(comparison: Comparison, row: Row) -> Cell:
    if row.first.is_untuned:
        return Cell(INAPPLICABLE)
    return number_cell(cost_ratio(comparison, row), digits=2)
