"""`prism-tune tables TABLE --explain CELL`: everything that a cell of a table comes from.

In: a composed table and the name of a cell, ROW:COLUMN. Out: a tree, as YAML or JSON: config, code,
data, subset and checkpoint, stage by stage. Every stage records what it read: the training the
SHA-256 of its subset, the evaluation the fingerprint of its training. So a stage that was run again
without those behind it shows, and is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from prism_tune.errors import UserError
from prism_tune.results.columns import Column
from prism_tune.results.comparison import Comparison
from prism_tune.results.cost import FullTuning, full_tuning
from prism_tune.results.paper import PaperRow, PaperTable
from prism_tune.results.printed import find_printed
from prism_tune.results.render import INAPPLICABLE, MISSING, Cell, OutputFormat, Table
from prism_tune.results.rows import Row, find_full, random_beside
from prism_tune.results.runs import FinishedRun
from prism_tune.run.fingerprints import fingerprint, fingerprint_file

Record = Mapping[str, Any]
_NOT_RECORDED = "not recorded"
_STAGES_OF: Mapping[str, tuple[str, ...]] = {
    "T_select": ("selection",),
    "select / full, %": ("selection",),
    "break-even T_select": ("training",),
    "T_tune": ("training",),
    "T_tune(sub)": ("training",),
    "T_tune(full)": (),
    "total / full": ("selection", "training"),
    "FLOPs select": ("selection",),
    "FLOPs tune": ("training",),
    "C": ("selection", "training"),
}
"""Whose attempts of the row itself are in a cell of times."""
_RELATIVE = ("Rel.", "95 % CI", "Δ paper", "P", "C", "break-even T_select")
_BY_FULL_TIME = ("T_tune(full)", "select / full, %", "total / full")
_NOT_OURS = ("Δ paper", "Rel. printed")


@dataclass(frozen=True)
class _Beside:
    """Another row behind a cell, and of which of its stages the attempts are in it."""

    role: str
    row: Row
    stages: tuple[str, ...] = ()


def explain_cell(
    name: str,
    table: Table,
    comparison: Comparison,
    printed: PaperTable,
    output_format: OutputFormat,
) -> str:
    """The provenance of one cell, as JSON where the format says so, else as YAML.

    Args:
        name: ROW:COLUMN; a row by its method or by one of its runs.
        table: as printed.
        comparison: the rows behind it.
        printed: the printed rows that may stand in it.
        output_format: of the table.

    Raises:
        UserError: no such row or column.
    """
    cells, column = _find_cell(name, table)
    label, runs = cells[0].text, cells[1].text
    cell = cells[table.header.index(column)]
    tree: dict[str, Any] = {"cell": _describe_cell(label, column, cell, table)}
    row = next((row for row in comparison.rows if (row.label, row.names) == (label, runs)), None)
    if row is None:
        tree["from"] = _describe_printed(label, column, cell, printed)
    else:
        tree |= _describe_source(row, column, comparison, printed)
    if output_format == "json":
        return orjson.dumps(tree, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
    plain = orjson.loads(orjson.dumps(tree))  # of a dictionary's own kinds YAML knows nothing
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


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
    row: Row, column: str, comparison: Comparison, printed: PaperTable
) -> dict[str, Any]:
    source: dict[str, Any] = {}
    shown = [c for c in comparison.columns.columns if c.label == column]
    stages = _STAGES_OF.get(column, ())
    whole = full_tuning(row, comparison.rows) if column in _BY_FULL_TIME else None
    if shown:
        source["from"] = _describe_column(shown[0])
    if whole is not None:
        source["from"] = f"T_tune(full) {whole.how}"
        stages = stages if whole.measured else tuple(dict.fromkeys([*stages, "training"]))
    if column in _NOT_OURS and (beside := find_printed(row, printed)) is not None:
        source["printed"] = f"{beside.label}: {_describe_rel(beside, printed)}"
    columns = list(comparison.columns.scored) if _is_relative(column) else shown
    source["runs"] = _describe_runs(row, stages, columns)
    for other in _list_beside(row, column, comparison, whole):
        source[other.role] = {
            "row": other.row.label,
            "runs": _describe_runs(other.row, other.stages, columns),
        }
    return source


def _describe_printed(label: str, column: str, cell: Cell, printed: PaperTable) -> str:
    """Whose number a printed one is, and where it is not as printed."""
    row = next(row for row in printed.rows if row.label == label)
    if cell.text in (MISSING, INAPPLICABLE):
        return f"nothing: {row.origin.source} prints none, or it is not at hand"
    return _describe_rel(row, printed) if column == "Rel." else f"{row.origin.source}, as printed"


def _describe_rel(row: PaperRow, printed: PaperTable) -> str:
    reference = printed.reference(row)
    if not row.cells or reference is None:
        return f"{row.origin.source}, Rel. as printed"
    return f"{row.origin.source}, Rel. recomputed from its cells, {reference.label} = 100"


def _is_relative(column: str) -> bool:
    return column in _RELATIVE or column.startswith("95 % CI")


def _list_beside(
    row: Row, column: str, comparison: Comparison, whole: FullTuning | None
) -> list[_Beside]:
    """The other rows that the cell is made of.

    Args:
        row: the cell's.
        column: likewise.
        comparison: of all rows.
        whole: what the cell takes for T_tune(full); None of a column that does not have it.
    """
    full = find_full(row, comparison.rows)
    found: dict[str, tuple[Row | None, tuple[str, ...]]] = {}
    if column == "break-even T_select":
        random = random_beside(row, comparison.rows)
        found = {"random": (random, ("selection", "training")), "relative_to": (full, ())}
    elif column == "C" or (whole is not None and whole.measured):
        found = {"relative_to": (full, ("training",))}
    elif column == "P":
        found = {"relative_to": (full, ())}
    elif _is_relative(column):
        found = {"relative_to": (comparison.baseline_of(row), ())}
    return [
        _Beside(role, other, stages)
        for role, (other, stages) in found.items()
        if other is not None and other is not row
    ]


def _describe_runs(
    row: Row, stages: Sequence[str], columns: Sequence[Column]
) -> list[dict[str, Any]]:
    described = []
    benchmarks = dict.fromkeys(column.benchmark for column in columns)
    for run in row.runs:
        item = _describe_run(run)
        if benchmarks:
            item["results"] = {name: _describe_results(run, name) for name in benchmarks}
        if stages:
            item["timings"] = {s: [dict(entry) for entry in run.attempts(s)] for s in stages}
        described.append(item)
    return described


def _describe_column(column: Column) -> str:
    mean = "the mean of " if len(column.metrics) > 1 else ""
    scale = f" x {column.scale:g}" if column.scale != 1 else ""
    return f"{mean}{', '.join(column.metrics)} of {column.benchmark}{scale}"


def _join(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _describe_run(run: FinishedRun) -> dict[str, Any]:
    """Folder, config, and where subset and checkpoint come from."""
    described: dict[str, Any] = {
        "folder": str(run.root),
        "config": {
            "recorded_by": [str(path) for path in sorted(run.root.glob("**/stage.json"))],
            "fingerprint": fingerprint(run.config.model_dump(mode="json")),
        },
        "seed": run.config.seed,
        "model": {"path": run.config.model.path, "revision": run.config.model.revision},
    }
    if run.is_selected:
        described["selection"] = _describe_selection(run)
    if not run.is_untuned:
        described["training"] = _describe_training(run)
    described["stale"] = run.stale or "nothing"
    return described


def _describe_results(run: FinishedRun, benchmark: str) -> dict[str, Any] | str:
    """The file behind a score, its data and protocol, and the code that made it."""
    result = run.results.get(benchmark)
    if result is None:
        return "not evaluated"
    provenance = dict(result.provenance)
    return {
        "file": str(run.run.benchmark(benchmark) / "results.json"),
        "profile": result.profile,
        "num_questions": result.num_examples,
        "num_missing": result.num_missing,
        "data_fingerprint": provenance.get("data", _NOT_RECORDED),
        "checkpoint_fingerprint": provenance.get("checkpoint", _NOT_RECORDED),
        "judge": provenance.get("judge"),
        **_describe_code(run.record(f"evaluation/{benchmark}")),
    }


def _describe_selection(run: FinishedRun) -> dict[str, Any]:
    manifest = run.manifest or {}
    recorded = manifest.get("subset_sha256", _NOT_RECORDED)
    return {
        "pool": run.config.data.records,
        "pool_fingerprint": manifest.get("pool_fingerprint", _NOT_RECORDED),
        "subset": str(run.run.subset),
        "subset_sha256": recorded,
        "subset_as_recorded": _matches(run.run.subset, recorded),
        **_describe_code(run.record("selection")),
    }


def _describe_training(run: FinishedRun) -> dict[str, Any]:
    record = run.record("training")
    inputs = record.get("inputs", {})
    return {
        "checkpoint": str(run.run.checkpoint),
        "fingerprint": record.get("fingerprint", _NOT_RECORDED),
        "records_fingerprint": inputs.get("records", _NOT_RECORDED),
        "model_fingerprint": inputs.get("model weights", _NOT_RECORDED),
        **_describe_code(record),
    }


def _describe_code(record: Record) -> dict[str, Any]:
    software = record.get("software", {})
    return {
        "git_commit": software.get("git_commit") or _NOT_RECORDED,
        "packages": software.get("packages", _NOT_RECORDED),
    }


def _matches(path: Path, sha256: str) -> bool:
    return path.exists() and fingerprint_file(path) == sha256
