"""`prism-tune compare --rows`: some cells are run, the whole comparison is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.table_runs import RunWriter, quickstart_result

from prism_tune.compare.launch import Launcher
from prism_tune.compare.run_grid import compare
from prism_tune.config.load import load_config
from prism_tune.run.folder import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def act(arguments):
    """The command line: evaluating writes a run folder with results."""
    verb, path, *_ = arguments
    config = load_config(path)
    if verb == "evaluate":
        RunWriter(Path(config.output_dir)).write(
            config.name,
            [quickstart_result(10, 10)],
            scorer=config.selection.scorer,
            seed=config.seed,
        )
    sys.exit(0)


def accept(paths):
    """Whatever the cells are."""
    sys.exit(0)


def run_some(path, *rows, only_table=False):
    """The selectors that have results, and what comparison.md says is finished."""
    config, launcher = load_config(path), Launcher("local", 1, act, ())
    run = RunDir(path.parent / "runs" / config.name)
    options = {"check": accept, "command": "again", "rows": rows, "only_table": only_table}
    assert compare(config, run, launcher, **options)
    found = json.loads((run.root / "comparison.json").read_text())
    (said,) = (
        line for line in (run.root / "comparison.md").read_text().splitlines() if "`again`" in line
    )
    return [row["selector"] for row in found["rows"] if row["performance"]], said[:28]


def test_some_rows_are_run_and_all_are_written(write_config):
    path = write_config({"selectors": ["random", "prism", "length"], "budgets": [0.25]})
    assert run_some(path, "prism") == (["prism"], "- 1 of 3 cells are finished.")
    assert run_some(path, "random") == (["random", "prism"], "- 2 of 3 cells are finished.")
    assert run_some(path, "random", only_table=True)[0] == ["random", "prism"]


def test_so_are_the_tables_of_rows(write_config):
    rows = ["random", {"name": "long", "selection": {"scorer": "length"}}]
    path = write_config({"rows": rows, "metrics": [], "tables": {"main": ["*"]}})
    config, launcher = load_config(path), Launcher("local", 1, act, ())
    run = RunDir(path.parent / "runs" / config.name)
    for row in ("random", "long"):
        assert compare(config, run, launcher, check=accept, command="again", rows=(row,))
    written = (run.root / "main.md").read_text()
    assert all(f"| {row}-seed0 " in written for row in ("random", "long"))
