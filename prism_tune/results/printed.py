"""Which printed rows stand beside a table's runs, what they differ by, and the notes on them."""

from __future__ import annotations

from collections.abc import Sequence

from prism_tune.config.budget_words import label_cut
from prism_tune.results.columns import Column
from prism_tune.results.comparison import Comparison
from prism_tune.results.labels import find_variant, is_as_published
from prism_tune.results.paper import PaperRow, PaperTable
from prism_tune.results.relative import relative_score
from prism_tune.results.render import MISSING, Cell, number_cell
from prism_tune.results.rows import Row, feature_depth, find_full

_DIFFERENCE = (
    "Δ paper: our Rel. minus the printed row's, where both have the same method, model, tuning and "
    "budget, and our baseline is tuned as the printed one."
)
_PAPER_BUDGET = 0.30


def papers_own(rows: Sequence[Row]) -> list[Row]:
    """The PRISM rows of the paper's setting, those of its budget first."""
    own = [
        row
        for row in rows
        if row.first.is_selected
        and row.first.config.selection.scorer == "prism"
        and not label_cut(row.first.config.selection)
        and not find_variant(row.first.config.selection, feature_depth(row.first))
    ]
    return sorted(own, key=lambda row: row.first.config.selection.budget != _PAPER_BUDGET)


def choose_printed(
    table: PaperTable, comparison: Comparison, columns: str, asked: bool | None
) -> tuple[PaperTable | None, list[str]]:
    """The printed rows of the models of these runs, where they are on the same columns.

    Args:
        table: the printed rows.
        comparison: the runs.
        columns: the name of the column set that the printed rows are on.
        asked: False: none; True: those of other models too.
    """
    if asked is False:
        return None, []
    if comparison.columns.name != columns:
        return None, ["The paper's rows are on other benchmarks and do not stand beside these."]
    models = [row.first.config.model_name for row in comparison.rows]
    found = table if asked else table.of_models(models)
    if not found.rows:
        listed = ", ".join(dict.fromkeys(model or "no name" for model in models))
        return None, [
            f"The paper's rows are of {', '.join(table.models)}, these runs (`model_name`) of "
            f"{listed}: they are left out; `--paper` prints them all the same."
        ]
    return found, [_DIFFERENCE, *paper_notes(found)]


def paper_notes(table: PaperTable) -> list[str]:
    """What a reader of these rows has to know."""
    reference = table.row(table.baseline)
    if reference is None or any(row.against for row in table.rows):
        return list(table.notes)
    recomputed = f"Rel. of the paper's rows is recomputed from its cells, {reference.label} = 100."
    return [recomputed, *table.notes]


def paper_relative(row: PaperRow, table: PaperTable, columns: Sequence[Column]) -> float | None:
    """Rel. of a printed row by our own code; None where its cells are not printed."""
    reference = table.reference(row)
    if reference is None:
        return None
    labels = [column.label for column in columns if not column.control]
    return relative_score(row.cells, {k: reference.cells.get(k) for k in labels}).value


def beside_cells(
    comparison: Comparison, row: Row, baseline: Row | None, paper: PaperTable
) -> tuple[Cell, Cell]:
    """Our Rel. minus the paper's, and the Rel. it prints for the same method.

    The paper's is recomputed from its cells; where it prints no cells, it is the printed one. There
    is no difference where the two refer to baselines of different kinds.
    """
    printed = find_printed(row, paper)
    if printed is None:
        return Cell(MISSING), Cell(MISSING)
    beside = number_cell(printed.printed_rel)
    if baseline is None or not _is_relative_alike(comparison, row, baseline, printed, paper):
        return Cell(MISSING), beside
    ours = comparison.relative(row, baseline).value
    theirs = paper_relative(printed, paper, comparison.columns.columns)
    if theirs is None and not printed.cells:
        theirs = printed.printed_rel
    if ours is None or theirs is None:
        return Cell(MISSING), beside
    return number_cell(ours - theirs, sign=True), beside


def find_printed(row: Row, paper: PaperTable) -> PaperRow | None:
    """The printed row that ours stands beside."""
    key = _paper_key(row, paper)
    rows = [p for p in paper.rows if (p.is_full if row.first.is_full else p.key == key)]
    return next((printed for printed in rows if _is_alike(row, printed)), None)


def _is_alike(row: Row, printed: PaperRow) -> bool:
    """The same model, tuned the same way, on as much of the pool, chosen by what was published."""
    config, origin = row.first.config, printed.origin
    if (config.model_name, config.training.tuning) != (origin.model, origin.tuning):
        return False
    if not row.first.is_selected:
        return True
    selection = config.selection
    is_counted_alike = selection.budget_of == origin.counts
    published = is_as_published(selection, feature_depth(row.first))
    return published and is_counted_alike and origin.is_budget(selection.budget)


def _paper_key(row: Row, paper: PaperTable) -> str:
    """The key of the printed row beside a subset's."""
    selection, model = row.first.config.selection, row.first.config.model_name
    if selection.scorer != "prism":
        return selection.scorer
    cut = label_cut(selection).strip(", ")
    variant = cut or find_variant(selection, feature_depth(row.first))
    return variant or (model if model and paper.row(model) else "prism")


def _is_relative_alike(
    comparison: Comparison, row: Row, baseline: Row, printed: PaperRow, paper: PaperTable
) -> bool:
    """Whether our Rel. is relative to what the printed one is: the whole pool, or PRISM."""
    reference = paper.reference(printed)
    if reference is None or reference.is_full:
        return baseline is find_full(row, comparison.rows)
    return find_printed(baseline, paper) is reference
