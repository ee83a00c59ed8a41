"""The comparison: a config with a `compare` section in, selectors side by side out.

Every cell is an ordinary run (select, train, evaluate). Stage rooms do not know each other, so the
verbs come from the command line, and what they leave in the run folders is read back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prism_tune.compare.cells import Budget, Cell, plan_cells, require_section, share_cell
from prism_tune.compare.workers import RunVerb, Task, Workers
from prism_tune.config.load import render_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.processes import world_size
from prism_tune.results.figure import draw_comparison
from prism_tune.results.grid import GridRow, build_grid
from prism_tune.results.grid_text import render_comparison
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir, write_atomic, write_json
from prism_tune.run.log import console

logger = logging.getLogger(__name__)

FeatureKey = Callable[[Config], str | None]
"""Stands for the features that a config's selection reads; None where it reads none."""


def compare(
    config: Config,
    run: RunDir,
    *,
    run_verb: RunVerb,
    feature_key: FeatureKey,
    command: str,
    only_table: bool = False,
) -> bool:
    """Run the cells that have not finished, and write comparison.md, .json and .html.

    A failed cell is tried again; a finished one is run only if its config or files changed.

    Args:
        config: the experiment, with a `compare` section.
        run: whose folder holds the cells.
        run_verb: runs `select`, `train` or `evaluate`.
        feature_key: equal for selections that may share their features.
        command: that goes on with this comparison, for the reader of the table.
        only_table: run nothing, and tabulate what has finished.

    Returns:
        Whether no cell has failed.

    Raises:
        ConfigError: a `compare` section that cannot be used.
        UserError: launched with several processes, or a finished cell that cannot be read.
    """
    if world_size() > 1:
        raise UserError(
            "compare takes no launcher: it starts its own processes (compare.num_processes). Cells "
            "are ordinary runs, and those brought to their end by torchrun count as well"
        )
    cells = plan_cells(config, run)
    for cell in cells:
        write_atomic(cell.run.config, render_config(cell.config))
    if not only_table:
        _run_pending(cells, run, run_verb, feature_key, require_section(config).num_processes)
    found = build_grid(config.name, require_section(config), _collect(cells))
    return _publish(found, run, command)


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


def _run_pending(
    cells: Sequence[Cell],
    run: RunDir,
    run_verb: RunVerb,
    feature_key: FeatureKey,
    num_processes: int,
) -> None:
    """Before the first cell that needs them, features that several cells read; else in order."""
    pending = [cell for cell in cells if cell.state() != "finished"]
    logger.info("compare: %d cells, %d to run", len(cells), len(pending))
    shared: dict[str, Cell] = {}
    tasks = []
    for cell in pending:
        key = feature_key(cell.config) if "select" in cell.verbs else None
        if key is None:
            tasks.append(Task(cell))
            continue
        if key not in shared:
            shared[key] = share_cell(cell, run, key)
            tasks.append(Task(shared[key]))
        tasks.append(Task(cell, shared[key]))
    with Workers(run_verb, num_processes) as workers:
        workers.run(tasks, _Progress(len(tasks)).report)


class _Progress:
    """Writes down and says how each task ended."""

    def __init__(self, num_tasks: int) -> None:
        self._num_tasks = num_tasks
        self._num_done = 0
        self._begin = time.perf_counter()

    def report(self, task: Task, error: str | None) -> None:
        self._num_done += 1
        task.cell.finish(error)
        elapsed = time.perf_counter() - self._begin
        logger.info(
            "compare: %d/%d %s %s (%.0f s each, %.0f min to go)%s",
            self._num_done,
            self._num_tasks,
            task.cell.config.name,
            "finished" if error is None else "failed",
            elapsed / self._num_done,
            elapsed / self._num_done * (self._num_tasks - self._num_done) / 60,
            "" if error is None else f": {error}",
        )


def _publish(found: dict[str, Any], run: RunDir, command: str) -> bool:
    markdown = render_comparison(found, command)
    path: Path = run.root / "comparison.md"
    write_json(run.root / "comparison.json", found)
    write_atomic(path, markdown)
    figure = run.root / "comparison.html"
    write_atomic(figure, draw_comparison(found))
    console.print(markdown, soft_wrap=True, markup=False, highlight=False)
    console.print(f"comparison: {path}\nfigure: {figure}", soft_wrap=True)
    return not any(row["failures"] for row in found["rows"])
