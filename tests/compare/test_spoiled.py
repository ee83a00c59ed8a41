"""Results of finished cells that somebody deleted, or made anew of other settings."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from prism_tune.compare.grid_cells import plan_cells
from prism_tune.compare.launch import Launcher
from prism_tune.compare.run_grid import compare
from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]
ONE, OTHER = "random-0.5-seed0", "prism-0.5-seed0"


def write_results(config: Config, run: RunDir, limit: int = 40) -> None:
    folder = run.benchmark("quickstart")
    result = {"benchmark": "quickstart", "metrics": {"accuracy": 50.0}, "num_examples": limit}
    write_json(folder / "results.json", {**result, "num_missing": 0, "profile": "llava15"})
    Stage(folder).finish({"limit": limit}, config=config)


def act(arguments) -> NoReturn:
    """The command line: evaluations leave results, as they do; notes what it was asked."""
    verb, path, *_ = arguments
    config = load_config(path)
    run = RunDir(Path(config.output_dir) / config.name)
    with (run.root.parents[1] / "log").open("a") as file:
        file.write(f"{verb} {config.name}\n")
    if verb == "evaluate":
        write_results(config, run)
    sys.exit(0)


def accept(paths) -> NoReturn:
    """Whatever the rows are."""
    sys.exit(0)


class Grid:
    """Two selectors that have finished."""

    def __init__(self, path: Path) -> None:
        self.config = load_config(path)
        self.run = RunDir(path.parent / "runs" / self.config.name)

    def compare(self, *, only_table: bool = False) -> bool:
        launcher = Launcher("local", 1, act, ())
        return compare(
            *(self.config, self.run, launcher),
            check=accept,
            command="again",
            only_table=only_table,
        )

    def cell(self, name: str):
        (cell,) = (c for c in plan_cells(self.config, self.run) if c.config.name == name)
        return cell

    def evaluated(self) -> list[str]:
        """So far."""
        lines = (self.run.root / "log").read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("evaluate")]


@pytest.fixture
def grid(write_config) -> Grid:
    section = {"selectors": ["random", "prism"], "budgets": [0.5], "seeds": [0]}
    made = Grid(write_config(section))
    assert made.compare()
    assert made.evaluated() == [ONE, OTHER]
    return made


def test_results_that_are_gone_are_made_again_and_the_others_tabulated(grid, caplog, capsys):
    shutil.rmtree(grid.cell(ONE).run.evaluation)
    assert grid.cell(ONE).state() is None
    assert grid.cell(OTHER).state() == "finished"
    assert grid.compare(only_table=True)
    assert f"{ONE} has no results of quickstart" in caplog.text
    assert "1 of 2 cells are finished" in capsys.readouterr().out
    assert grid.compare()
    assert grid.evaluated() == [ONE, OTHER, ONE]
    assert grid.cell(ONE).state() == "finished"


def test_results_of_other_settings_are_not_tabulated_but_made_again(grid):
    cell = grid.cell(OTHER)
    write_results(cell.config, cell.run, limit=5)
    assert cell.changed() == ["results of quickstart are of other settings"]
    with pytest.raises(UserError, match=rf"{OTHER} \(quickstart\): evaluated with other settings"):
        grid.compare(only_table=True)
    assert grid.compare()
    assert grid.evaluated() == [ONE, OTHER, OTHER]
    write_results(cell.config, cell.run)  # again with the same settings
    assert cell.state() == "finished"


def test_a_benchmark_that_is_asked_since_makes_a_cell_unfinished(grid, questions):
    evaluation = grid.config.evaluation
    grid.config = grid.config.model_copy(
        update={"evaluation": evaluation.model_copy(update={"benchmarks": ("quickstart", "pope")})}
    )
    assert grid.cell(ONE).changed() == ["results of pope are gone"]
