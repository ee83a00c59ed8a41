"""`prism-tune tables TABLE --explain CELL`: everything that a cell of a table comes from.

In: a composed table and the name of a cell, ROW:COLUMN. Out: a tree, as YAML or JSON.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson
import yaml

from prism_tune.errors import UserError
from prism_tune.results.columns import Column
from prism_tune.results.comparison import Comparison
from prism_tune.results.render import Cell, Table
from prism_tune.results.rows import Row
from prism_tune.results.scores import BaselineOf
from prism_tune.results.trace import describe_results, describe_run, describe_times

_STAGE_OF = {
    "T_select": ("selection",),
    "select / full, %": ("selection", "training"),
    "break-even T_select": ("selection", "training"),
    "T_tune": ("training",),
    "T_tune(sub)": ("training",),
    "T_tune(full)": ("training",),
    "total / full": ("selection", "training"),
    "FLOPs select": ("selection",),
    "FLOPs tune": ("training",),
    "energy": ("selection", "training"),
    "C": ("selection", "training"),
}
_RELATIVE = ("Rel.", "95 % CI", "Δ paper", "P", "C", "break-even T_select")


def explain_cell(
    name: str,
    table: Table,
    comparison: Comparison,
    baseline_of: BaselineOf,
    output_format: Literal["md", "latex", "csv", "json"],
) -> str:
    """The provenance of one cell, as JSON where the format says so, else as YAML.

    Args:
        name: ROW:COLUMN; a row by its method or by one of its runs.
        table: as printed.
        comparison: the rows behind it.
        baseline_of: the row that Rel. of a row refers to.
        output_format: of the table.

    Raises:
        UserError: no such row or column.
    """
    cells, column = _find_cell(name, table)
    label, runs = cells[0].text, cells[1].text
    tree = {
        "cell": _describe_cell(label, column, cells[table.header.index(column)], table),
        **_describe_source(label, runs, column, comparison, baseline_of),
    }
    if output_format == "json":
        return orjson.dumps(tree, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def _find_cell(name: str, table: Table) -> tuple[tuple[Cell, ...], str]:
    row_name, colon, column = name.rpartition(":")
    if not colon:
        raise UserError(f"--explain {name}: expected ROW:COLUMN, for example 'prism:Rel.'")
    if column not in table.header:
        raise UserError(f"--explain {name}: no column {column!r}; there are {_join(table.header)}")
    for cells in table.rows:
        if row_name == cells[0].text or row_name in cells[1].names:
            return cells, column
    known = [cells[0].text for cells in table.rows]
    raise UserError(f"--explain {name}: no row {row_name!r}; there are {_join(known)}")


def _describe_cell(label: str, column: str, cell: Cell, table: Table) -> dict[str, Any]:
    numbers = {"value": cell.value, "sd": cell.sd, "low": cell.low, "high": cell.high}
    return {
        "table": table.title,
        "row": label,
        "column": column,
        "printed": cell.text,
        **{key: float(value) for key, value in numbers.items() if value is not None},
    }


def _describe_source(
    label: str, runs: str, column: str, comparison: Comparison, baseline_of: BaselineOf
) -> dict[str, Any]:
    row = next((row for row in comparison.rows if (row.label, row.names) == (label, runs)), None)
    if row is None:
        return {"from": "arXiv 2502.12119 as printed; Rel. is recomputed from its cells"}
    source: dict[str, Any] = {}
    shown = [c for c in comparison.columns.columns if c.label == column]
    if shown:
        source["from"] = _describe_column(shown[0])
    baseline = baseline_of(row)
    is_relative = column in _RELATIVE or column.startswith("95 % CI")
    columns = list(comparison.columns.scored) if is_relative else shown
    source["runs"] = _describe_runs(row, column, columns)
    if is_relative and baseline is not None and baseline is not row:
        source["relative_to"] = {
            "row": baseline.label,
            "runs": _describe_runs(baseline, column, columns),
        }
    return source


def _describe_runs(row: Row, column: str, columns: list[Column]) -> list[dict[str, Any]]:
    described = []
    benchmarks = dict.fromkeys(column.benchmark for column in columns)
    for run in row.runs:
        item = describe_run(run)
        if benchmarks:
            item["results"] = {name: describe_results(run, name) for name in benchmarks}
        if column in _STAGE_OF:
            item["timings"] = {stage: describe_times(run, stage) for stage in _STAGE_OF[column]}
        described.append(item)
    return described


def _describe_column(column: Column) -> str:
    mean = "the mean of " if len(column.metrics) > 1 else ""
    scale = f" x {column.scale:g}" if column.scale != 1 else ""
    return f"{mean}{', '.join(column.metrics)} of {column.benchmark}{scale}"


def _join(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
