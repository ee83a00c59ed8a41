"""What a table says of a run is what its stages did, whatever was asked of its folder later."""

from __future__ import annotations

import json

import pytest
import yaml
from support.table_runs import quickstart_result
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import UserError
from prism_tune.results.build import build_table
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage


def finish(folder, config, inputs=None, **changes):
    """A stage finishes with these sections of the config changed."""
    sections = {
        name: getattr(config, name).model_copy(update=change)
        if isinstance(change, dict)
        else change
        for name, change in changes.items()
    }
    Stage(folder).finish(inputs or {}, config=config.model_copy(update=sections))


@pytest.fixture
def run(runs):
    return RunDir(runs.write("prism", [quickstart_result(15, 20)]))


def label(run) -> str:
    text = build_table("main", [run.root], baseline=None, output_format="json")
    return json.loads(text)["rows"][0]["Method"]["text"]


def test_looking_and_failing_relabel_nothing(run):
    """Another config lies in the folder, and verbs with it were called and refused."""
    before = build_table("main", [run.root], baseline=None)
    other = Stage(run.training).config().model_dump(mode="json")
    other["selection"] |= {"scorer": "length", "budget": 0.9}
    other["training"]["tuning"] = "full"
    other["output_dir"] = str(run.root.parent)
    path = run.root / "config.yaml"
    path.write_text(yaml.safe_dump(other))
    for verb in ("preview", "audit", "train"):
        assert CliRunner().invoke(app, [verb, str(path), "name=prism"]).exit_code != 0
    assert build_table("main", [run.root], baseline=None) == before
    assert label(run) == "PRISM 25 % (lora)"


def test_an_untuned_model_evaluated_beside_a_training_is_the_untuned_row(run):
    config = Stage(run.training).config()
    finish(run.benchmark("quickstart"), config, training={"tuning": "none"}, seed=7)
    assert label(run) == "untuned"
    found = FinishedRun(run)
    assert (found.is_untuned, found.config.seed) == (True, 7)


def test_answers_of_two_models_in_one_folder_are_stale(run):
    """One benchmark was asked of the tuned model, another of the untuned one."""
    config = Stage(run.training).config()
    trained = Stage(run.training).require("train")["fingerprint"]
    finish(run.benchmark("quickstart"), config, {"checkpoint": trained})
    finish(run.benchmark("pope"), config, {"checkpoint": "m"}, training={"tuning": "none"})
    write_json(run.benchmark("pope") / "results.json", quickstart_result(1, 1, benchmark="pope"))
    text = build_table("main", [run.root], baseline=None)
    assert "- STALE prism: evaluation/pope: of another checkpoint than training/ holds" in text
    assert label(run) == "PRISM 25 % (lora)"


def test_each_part_of_a_label_is_of_the_stage_that_it_describes(run):
    """The subset's scorer and budget are the selection's; tuning, model and seed the training's."""
    config = Stage(run.training).config()
    finish(run.selection, config, selection={"scorer": "length", "budget": 0.5}, seed=3)
    finish(run.training, config, training={"tuning": "full"}, seed=4, model_name="Phi")
    finish(run.benchmark("quickstart"), config, seed=5)
    assert label(run) == "length (per source, other settings) 50 % (full)"
    found = FinishedRun(run).config
    assert (found.seed, found.model_name) == (4, "Phi")


def test_an_older_record_says_what_to_do(run):
    write_json(run.training / "stage.json", {"fingerprint": "f", "inputs": {}, "outputs": {}})
    with pytest.raises(
        UserError, match=r"training/stage.json: no `config`, .*run that stage again"
    ):
        FinishedRun(run)


def test_a_comparison_points_to_its_cells(run):
    grid = RunDir(run.root.parent / "grid")
    finish(grid.audit, Stage(run.training).config())
    for cell in ("prism-0.3-seed0", "random-0.3-seed0"):
        (grid.root / "cells" / cell).mkdir(parents=True)
        (grid.root / "cells" / cell / "cell.yaml").write_text("")
    told = rf"grid: the folder of a comparison of 2 cells.* its rows, in {run.root.parent}/"
    with pytest.raises(UserError, match=told):
        build_table("main", [grid.root], baseline=None)
    (grid.root / "cells/prism-0.3-seed0/evaluation").mkdir()
    with pytest.raises(UserError, match=r"give these, --runs .*grid/cells/\*-seed\*"):
        build_table("main", [grid.root], baseline=None)
