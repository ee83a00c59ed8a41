"""`prism-tune tables`: run folders in, a rendered table out and in each run's `tables/`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prism_tune.errors import ConfigError, UserError
from prism_tune.results import paper
from prism_tune.results.columns import COLUMN_SETS, ColumnSet, add_own, unshown_notes
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import build_cost_table, cost_ratio
from prism_tune.results.notes import (
    batch_notes,
    describe_columns,
    left_out_notes,
    measurement_notes,
    relative_notes,
    say_verdict,
    spread_notes,
    stale_notes,
    time_notes,
    unranked_notes,
)
from prism_tune.results.paper import PaperTable
from prism_tune.results.printed import choose_printed, paper_notes, papers_own
from prism_tune.results.relative import check_comparable
from prism_tune.results.render import SUFFIXES, OutputFormat, Table, render
from prism_tune.results.rows import (
    BaselineOf,
    Row,
    find_full,
    find_named,
    group_rows,
    same_model,
)
from prism_tune.results.runs import FinishedRun, open_runs, require_evaluated
from prism_tune.results.scores import paper_cells, score_cells, score_header
from prism_tune.results.trace import explain_cell
from prism_tune.run.folder import write_atomic

logger = logging.getLogger(__name__)

BaselineRule = Literal["whole pool", "per model", "prism"]


@dataclass(frozen=True)
class TableKind:
    """What a table of that name holds.

    Attributes:
        title: the heading.
        columns: its column set where the runs were evaluated on real benchmarks.
        printed: the paper's rows.
        baseline: how the baseline is chosen where the user names none.
        has_quickstart: whether runs evaluated on the quickstart show its columns instead.
    """

    title: str
    columns: str
    printed: PaperTable
    baseline: BaselineRule = "whole pool"
    has_quickstart: bool = True


TABLES = {
    "main": TableKind("Main table", "llava", paper.MAIN),
    "cost": TableKind("Cost", "llava", paper.MAIN),
    "ablation": TableKind("Ablations", "ablation", paper.ABLATION, baseline="prism"),
    "models": TableKind("Models", "llava", paper.MODELS, baseline="per model"),
    "visionflan": TableKind("Vision-Flan", "visionflan", paper.VISIONFLAN, has_quickstart=False),
    "selectors": TableKind("Selection studies", "selectors", paper.SELECTORS, has_quickstart=False),
    "language": TableKind(
        "Language", "language", paper.LANGUAGE, baseline="per model", has_quickstart=False
    ),
}


@dataclass(frozen=True)
class Composed:
    """A table, and the rows behind it."""

    table: Table
    comparison: Comparison


def build_table(
    table: str,
    runs: Sequence[Path],
    *,
    baseline: str | None,
    printed: bool | None = None,
    output_format: OutputFormat = "md",
) -> str:
    """Build a table of runs, and write it to each run's `tables/<table>.<suffix>` (and `.json`).

    Args:
        table: a key of `TABLES`.
        runs: run folders; none shows the paper's rows alone.
        baseline: name or folder of the run Rel. = 100 refers to; None chooses and says which.
        printed: whether the paper's rows stand there; None: those of the models of the runs.
        output_format: of the text.

    Raises:
        ConfigError: no such table.
        UserError: unreadable or incomplete run folders, or runs that cannot be compared.
    """
    if not runs and printed is False:
        raise UserError("--no-paper: without --runs there are the paper's rows alone; name folders")
    composed = compose_table(table, open_runs(runs), baseline, printed)
    text = render(composed.table, output_format)
    written = {
        SUFFIXES[output_format]: text,
        SUFFIXES["json"]: render(composed.table, "json"),
    }
    for row in composed.comparison.rows:
        for run in row.runs:
            for suffix, content in written.items():
                _write(run.run.tables / f"{table}{suffix}", content)
    return text


def explain_table_cell(
    table: str,
    runs: Sequence[Path],
    cell: str,
    *,
    baseline: str | None,
    printed: bool | None = None,
    output_format: OutputFormat = "md",
) -> str:
    """What a cell of that table comes from (see `trace.py`); nothing is written.

    Raises:
        ConfigError, UserError: as `build_table`; no such cell.
    """
    composed = compose_table(table, open_runs(runs), baseline, printed)
    rows = TABLES[table].printed
    return explain_cell(cell, composed.table, composed.comparison, rows, output_format)


def compose_table(
    table: str, runs: Sequence[FinishedRun], baseline: str | None, printed: bool | None = None
) -> Composed:
    """The table without its text.

    Raises:
        ConfigError, UserError: as `build_table`.
    """
    if table not in TABLES:
        raise ConfigError(f"tables: no table {table!r}; there are {', '.join(TABLES)}")
    kind = TABLES[table]
    for run in runs:
        require_evaluated(run)
    columns, rule = _choose_columns(kind, runs)
    columns = add_own(columns, [run.results for run in runs])
    _check_runs(runs, columns)
    rows = tuple(group_rows(runs))
    if table == "cost":
        comparison = Comparison(rows, columns, lambda row: find_full(row, rows))
        return Composed(
            build_cost_table(comparison, describe_columns(comparison, rule)), comparison
        )
    if not rows:
        comparison = Comparison(rows, columns, lambda _: None)
        return Composed(_build_paper(kind, comparison), comparison)
    baseline_of, chosen = _choose_baselines(rows, baseline, kind.baseline)
    comparison = Comparison(rows, columns, baseline_of)
    beside = choose_printed(kind.printed, comparison, kind.columns, printed)
    return Composed(_build_scores(kind, comparison, rule, chosen, beside), comparison)


def _choose_baselines(
    rows: Sequence[Row], name: str | None, rule: BaselineRule
) -> tuple[BaselineOf, str]:
    """The row that Rel. of each row refers to, and how it was chosen."""
    if rule == "per model" and name is None:

        def full_of(row: Row) -> Row | None:
            same = same_model(row, rows)
            return next((other for other in same if other.first.is_full), None)

        return full_of, "whole pool of the same model"
    common = find_named(rows, name) if name is not None else _choose_baseline(rows, rule)
    return (lambda _: common), _describe_baseline(common, name, rule)


def _choose_baseline(rows: Sequence[Row], rule: BaselineRule) -> Row:
    """The first of whole pool, Random, untuned, any; by "prism" of PRISM as the paper has it."""
    candidates = [
        *(papers_own(rows) if rule == "prism" else []),
        *[row for row in rows if row.first.is_full],
        *[row for row in rows if row.is_random],
        *[row for row in rows if row.first.is_untuned],
        *rows,
    ]
    return candidates[0]


def _choose_columns(kind: TableKind, runs: Sequence[FinishedRun]) -> tuple[ColumnSet, str]:
    if kind.has_quickstart and runs and all("quickstart" in run.results for run in runs):
        return COLUMN_SETS["quickstart"], "every run was evaluated on it"
    rule = "not every run was evaluated on `quickstart`" if kind.has_quickstart else "this table's"
    return COLUMN_SETS[kind.columns], rule if runs else "the paper's"


def _check_runs(runs: Sequence[FinishedRun], columns: ColumnSet) -> None:
    """Raise UserError for runs without a column of the set, or that were not measured alike."""
    for run in runs:
        if not set(run.results) & set(columns.benchmarks):
            raise UserError(
                f"{run.root}: evaluated on {', '.join(run.results)}, which is none of the columns "
                f"`{columns.name}` ({', '.join(columns.benchmarks)}); "
                "run `prism-tune evaluate CONFIG evaluation.benchmarks=[...]`"
            )
    shown = set(columns.benchmarks)
    check_comparable(
        {run.name: {k: v for k, v in run.results.items() if k in shown} for run in runs}
    )


def _build_scores(
    kind: TableKind,
    comparison: Comparison,
    rule: str,
    chosen: str,
    beside: tuple[PaperTable | None, list[str]],
) -> Table:
    rows = comparison.rows
    printed, printed_notes = beside
    ours = [score_cells(comparison, row, printed) for row in rows]
    columns = comparison.columns.columns
    runs = [run for row in rows for run in row.runs]
    elsewhere = {t: _choose_columns(TABLES[t], runs)[0] for t in TABLES if t != "cost"}
    theirs = [paper_cells(row, printed, columns) for row in printed.rows] if printed else []
    return Table(
        title=f"{kind.title}, columns `{comparison.columns.name}`",
        header=score_header(comparison, with_paper=printed is not None),
        rows=(*ours, *theirs),
        verdicts={
            verdict.row.label: say_verdict(verdict, comparison) for verdict in comparison.verdicts()
        },
        notes=(
            *stale_notes(rows),
            *unranked_notes(rows),
            *batch_notes(rows),
            f"Baseline (Rel. = 100): {chosen}.",
            describe_columns(comparison, rule),
            *unshown_notes(comparison.columns, [run.results for run in runs], elsewhere),
            *left_out_notes(comparison),
            *measurement_notes(comparison),
            *relative_notes(comparison),
            *spread_notes(comparison),
            *time_notes(comparison, lambda row: cost_ratio(comparison, row) is not None),
            *printed_notes,
        ),
    )


def _describe_baseline(row: Row, named: str | None, rule: BaselineRule) -> str:
    first_choice = "PRISM as in the paper, else " if rule == "prism" else ""
    why = f"chosen: {first_choice}whole pool, else Random, else untuned"
    if named is not None:
        why = "named"
    return f"{row.label} ({row.names}; {why})"


def _build_paper(kind: TableKind, comparison: Comparison) -> Table:
    """The paper's rows alone; the comparison has none."""
    columns = comparison.columns
    header = score_header(comparison, with_paper=True)
    shown = {"Method", "Run", "Kept", "Rel.", "Rel. printed", *(c.label for c in columns.columns)}
    keep = [k for k, heading in enumerate(header) if heading in shown]
    rows = [paper_cells(row, kind.printed, columns.columns) for row in kind.printed.rows]
    return Table(
        title=f"{kind.title}, columns `{columns.name}`",
        header=tuple(header[k] for k in keep),
        rows=tuple(tuple(row[k] for k in keep) for row in rows),
        notes=(
            "No runs given: the paper's rows alone; `--runs runs/NAME` puts yours beside them.",
            describe_columns(comparison, "the paper's"),
            *paper_notes(kind.printed),
        ),
    )


def _write(path: Path, text: str) -> None:
    """Keep the table in the run; a folder that cannot be written to does not stop the printing."""
    try:
        write_atomic(path, text)
    except OSError as error:
        logger.warning("%s: not written: %s", path, error)
