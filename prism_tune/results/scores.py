"""A comparison in, the table of scores out: one row a configuration, Rel., counts, times and C."""

from __future__ import annotations

from collections.abc import Sequence

from prism_tune.config.budget_words import label_cut
from prism_tune.intervals import spread
from prism_tune.results.columns import Column
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import cost_ratio, row_mean, runs_cell
from prism_tune.results.labels import find_variant, is_as_published
from prism_tune.results.paper import PaperRow, PaperTable
from prism_tune.results.relative import relative_score
from prism_tune.results.render import INAPPLICABLE, MISSING, Cell, duration_cell, number_cell
from prism_tune.results.rows import Row, feature_depth


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
    beside = _paper_cells(comparison, row, baseline, paper) if paper else ()
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


def paper_relative(row: PaperRow, table: PaperTable, columns: Sequence[Column]) -> float | None:
    """Rel. of a printed row by our own code; None where its cells are not printed."""
    reference = table.row(row.against or table.baseline)
    if reference is None:
        return None
    labels = [column.label for column in columns if not column.control]
    return relative_score(row.cells, {k: reference.cells.get(k) for k in labels}).value


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


def _paper_cells(
    comparison: Comparison, row: Row, baseline: Row | None, paper: PaperTable
) -> tuple[Cell, Cell]:
    """Our Rel. minus the paper's, and the Rel. it prints for the same method.

    The paper's is recomputed from its cells; where it prints no cells, it is the printed one.
    A row of another model or budget is no counterpart.
    """
    printed = paper.row(_paper_key(row, paper))
    if printed is None or baseline is None or not _is_alike(row, printed):
        return Cell(MISSING), Cell(MISSING)
    ours = comparison.relative(row, baseline).value
    theirs = paper_relative(printed, paper, comparison.columns.columns)
    if theirs is None and not printed.cells:
        theirs = printed.printed_rel
    if ours is None or theirs is None:
        return Cell(MISSING), number_cell(printed.printed_rel)
    return number_cell(ours - theirs, sign=True), number_cell(printed.printed_rel)


def _is_alike(row: Row, printed: PaperRow) -> bool:
    """Tuned from the same model, on as much of the pool, chosen by what was published."""
    config = row.first.config
    if config.model_name != printed.origin.model:
        return False
    if not row.first.is_selected:
        return True
    selection = config.selection
    is_counted_alike = selection.budget_of == printed.origin.counts
    published = is_as_published(selection, feature_depth(row.first))
    return published and is_counted_alike and printed.origin.is_budget(selection.budget)


def _paper_key(row: Row, paper: PaperTable) -> str:
    """Which printed row ours stands beside."""
    run = row.first
    if not run.is_selected:
        return "full" if run.is_full else "untuned"
    if run.config.selection.scorer != "prism":
        return run.config.selection.scorer
    selection = run.config.selection
    cut = label_cut(selection).strip(", ")
    variant = cut or find_variant(selection, feature_depth(run))
    if variant:
        return variant
    model = run.config.model_name
    return model if model and paper.row(model) else "prism"


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
