"""Which printed rows can stand beside a table's runs, and the notes on them."""

from __future__ import annotations

from prism_tune.results.comparison import Comparison
from prism_tune.results.paper import PaperTable


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
    return found, paper_notes(found)


def paper_notes(table: PaperTable) -> list[str]:
    """What a reader of these rows has to know."""
    reference = table.row(table.baseline)
    if reference is None or any(row.against for row in table.rows):
        return list(table.notes)
    recomputed = f"Rel. of the paper's rows is recomputed from its cells, {reference.label} = 100."
    return [recomputed, *table.notes]
