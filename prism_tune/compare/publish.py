"""What a grid's finished cells amount to: the comparison, its figure and its tables, written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prism_tune.compare.cells import Budget, Cell
from prism_tune.compare.grid_cells import require_section
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.results.build import build_table
from prism_tune.results.figure import draw_comparison
from prism_tune.results.grid import GridRow, build_grid
from prism_tune.results.grid_text import render_comparison, render_results
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir, write_atomic, write_json
from prism_tune.run.log import console

logger = logging.getLogger(__name__)


def publish(config: Config, run: RunDir, cells: Sequence[Cell], command: str) -> None:
    """Write and print what the config's `compare` section asks for.

    Args:
        config: the grid.
        run: its folder.
        cells: all of it, finished or not.
        command: that goes on with it, for the reader.
    """
    wanted = require_section(config)
    if wanted.metrics:
        _publish(build_grid(config.name, wanted, _collect(cells)), run, command)
    for kind, patterns in wanted.tables.items():
        _publish_table(kind, _rows_of(cells, patterns), run)


def check_results(cells: Sequence[Cell]) -> None:
    """Say whose results are gone, before the others are tabulated.

    Raises:
        UserError: some are of other settings than those that the comparison evaluated.
    """
    spoiled = {cell.config.name: cell.spoiled() for cell in cells}
    for name, benchmarks in spoiled.items():
        gone = [benchmark for benchmark, how in benchmarks.items() if how == "gone"]
        if gone:
            logger.warning(
                "compare: %s has no results of %s (any more) and is left out; without "
                "--only-table it is evaluated",
                *(name, ", ".join(gone)),
            )
    others = {
        f"{name} ({benchmark})"
        for name, benchmarks in spoiled.items()
        for benchmark, how in benchmarks.items()
        if how == "of other settings"
    }
    if others:
        raise UserError(
            f"{', '.join(sorted(others))}: evaluated with other settings since the comparison "
            "did; such scores cannot be compared. Without --only-table they are evaluated again"
        )


def _collect(cells: Sequence[Cell]) -> list[GridRow]:
    """A row for each selector and budget."""
    groups: dict[tuple[Budget | None, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.budget, cell.selector), []).append(cell)
    return [
        GridRow(
            selector,
            budget,
            tuple(FinishedRun(cell.run) for cell in members if cell.state() == "finished"),
            {cell.seed: cell.error() for cell in members if cell.state() == "failed"},
            len(members),
        )
        for (budget, selector), members in groups.items()
    ]


def _publish(found: dict[str, Any], run: RunDir, command: str) -> None:
    markdown = render_comparison(found, command)
    path: Path = run.root / "comparison.md"
    write_json(run.root / "comparison.json", found)
    write_atomic(path, markdown)
    figure = run.root / "comparison.html"
    write_atomic(figure, draw_comparison(found))
    shown = render_results(found, command)
    console.print(shown, soft_wrap=True, highlight=False)
    console.print(f"comparison: {path}\nfigure: {figure}", soft_wrap=True)


def _rows_of(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The finished cells of these rows, pattern by pattern, each row's seeds together."""
    names = dict.fromkeys(cell.selector for cell in cells)
    ordered = dict.fromkeys(n for pattern in patterns for n in names if fnmatch(n, pattern))
    return [c for n in ordered for c in cells if c.selector == n and c.state() == "finished"]


def _publish_table(kind: str, cells: Sequence[Cell], run: RunDir) -> None:
    if not cells:
        console.print(f"Table {kind}: no run of it has finished")
        return
    text = build_table(kind, [cell.run.root for cell in cells], baseline=None)
    path = run.root / f"{kind}.md"
    write_atomic(path, text + "\n")
    console.print(text, soft_wrap=True, highlight=False)
    console.print(f"table: {path}", soft_wrap=True)
