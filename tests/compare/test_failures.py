"""A grid whose verbs fail: what is tried again, what is said, what goes on. Verbs are stand-ins."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from prism_tune.cli.grid import check_configs
from prism_tune.compare import run_grid as grid
from prism_tune.compare.grid_cells import plan_cells
from prism_tune.compare.launch import Launcher
from prism_tune.compare.run_grid import compare
from prism_tune.config.load import load_config
from prism_tune.errors import ConfigError, UserError
from prism_tune.run.folder import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]
NAMES = ["sound", "killed", "once", "defect", "mistake", "last"]


def act(arguments):
    """The command line: some rows fail, each in its way; notes what it was asked."""
    verb, path, *options = arguments
    config = load_config(path)
    row = config.name.removesuffix("-seed0")
    log = Path(config.output_dir) / "log"
    with log.open("a") as file:
        file.write(" ".join([verb, row, *options]) + "\n")
    if verb == "train":
        num_asked = log.read_text().count(f"train {row}")
        if row == "killed" or (row == "once" and num_asked == 1):
            sys.stdout.write("loading\n")
            sys.stdout.flush()
            os._exit(9)
        model = Path(config.output_dir) / f"{row}.model"
        rank = str(config.training.lora["r"])
        if model.exists() and model.read_text() != rank and "--force" not in options:
            sys.stderr.write("error: a finished training of other inputs; --force replaces it\n")
            sys.exit(1)
        model.write_text(rank)
        if row == "defect":
            raise ZeroDivisionError("a defect")
        if row == "mistake":
            sys.stderr.write("error: data.records: no such file\n  it was moved\n")
            sys.exit(1)
    if verb == "audit" and row == "refused":
        sys.exit(1)
    sys.exit(0)


def accept(paths):
    """Whatever the rows are."""
    sys.exit(0)


LAUNCHER = Launcher("local", 1, act, ())


@pytest.fixture
def path(write_config, monkeypatch):
    monkeypatch.setattr(grid, "_PAUSE_SECONDS", 0.0)
    return write_config({"rows": NAMES, "metrics": [], "num_processes": 2})


def run_grid(path, *overrides, rows=("*",), check=accept):
    config = load_config(path, overrides)
    run = RunDir(path.parent / "runs" / config.name)
    done = compare(config, run, LAUNCHER, check=check, command="again", rows=rows)
    return done, {cell.selector: cell for cell in plan_cells(config, run, rows)}


def asked(path):
    return (path.parent / "runs/log").read_text().splitlines()


def test_failures_are_named_crashes_tried_again_and_the_others_go_on(path):
    done, cells = run_grid(path)
    assert not done
    assert {name for name in NAMES if cells[name].state() == "finished"} == {
        "sound",
        "once",
        "last",
    }
    assert cells["killed"].error() == "the process ended with exit code 9: loading"
    assert cells["defect"].error().endswith("exit code 1: ZeroDivisionError: a defect")
    assert cells["mistake"].error() == "data.records: no such file\n  it was moved"
    assert "Traceback" in cells["defect"].output.read_text()
    calls = Counter(asked(path))
    assert asked(path)[0] == "audit tiny"
    assert [calls[f"train {name}"] for name in NAMES] == [1, 2, 2, 2, 1, 1]
    assert [calls[f"evaluate {name}"] for name in NAMES] == [1, 0, 1, 0, 0, 1]


def test_the_next_call_tries_the_failed_ones_alone(path, caplog):
    run_grid(path)
    before = len(asked(path))
    with caplog.at_level("INFO", logger="prism_tune"):
        assert not run_grid(path)[0]
    assert "compare: 6 cells, 3 to run" in caplog.messages
    assert {call.split()[1] for call in asked(path)[before:]} == {
        *("tiny", "killed", "defect", "mistake")
    }


def test_a_scorer_that_does_not_exist_is_refused_at_once(path, capsys):
    metrics = "compare.metrics=[quickstart.accuracy]"
    given = ["compare.rows=[]", "compare.selectors=[random,prisma]", metrics]
    with pytest.raises(ConfigError, match="a row that cannot be selected or tuned; see above"):
        run_grid(path, *given, check=check_configs)
    assert not (path.parent / "runs/log").exists()
    with pytest.raises(SystemExit):  # the same here: the other process has streams of its own
        check_configs([str(cell) for cell in (path.parent / "runs").rglob("cell.yaml")])
    assert "unknown scorer 'prisma'" in capsys.readouterr().err


def test_planted_records_are_read_before_cells_are_paid_for(path):
    with pytest.raises(UserError, match=r"nowhere\.json"):
        run_grid(path, "compare.planted=nowhere.json")
    assert not (path.parent / "runs/log").exists()


def test_a_grid_that_has_finished_starts_nothing(path):
    assert run_grid(path, rows=["sound", "last"])[0]
    before = asked(path)
    assert run_grid(path, rows=["sound", "last"])[0]
    assert asked(path) == before


def test_a_cell_whose_training_has_other_inputs_replaces_it(path):
    run_grid(path, rows=["sound"])
    run_grid(path, "evaluation.batch_size=3", rows=["sound"])
    assert asked(path)[-2:] == ["train sound", "evaluate sound"]  # the model is what it was
    assert run_grid(path, "training.lora.r=2", rows=["sound"])[0]
    assert asked(path)[-3:] == ["train sound", "train sound --force", "evaluate sound"]


def test_a_training_that_the_grid_has_not_made_is_not_replaced(path):
    (path.parent / "runs").mkdir()
    (path.parent / "runs/sound.model").write_text("64")
    done, cells = run_grid(path, rows=["sound"])
    assert not done
    assert "--force replaces it" in cells["sound"].error()
    assert (path.parent / "runs/sound.model").read_text() == "64"


def test_a_pool_that_does_not_pass_the_audit_stops_the_grid(path):
    with pytest.raises(UserError, match="did not pass the audit"):
        run_grid(path, "name=refused")
    assert asked(path) == ["audit refused"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_url", "http://me:geheim12@gpu7:8000/v1"),
        ("serve_command", "env HF_TOKEN=geheim12 vllm serve {model} --port {port}"),
    ],
)
def test_a_secret_is_refused_before_it_would_be_cut_out_of_the_cells_configs(path, key, value):
    """The verbs would ask a server called `<redacted>`."""
    with pytest.raises(ConfigError) as error:
        run_grid(path, "evaluation.backend=openai", f"evaluation.{key}='{value}'")
    assert f"sound-seed0: `evaluation.{key}`: looks like a password, token or key" in str(
        error.value
    )
    assert "environment" in str(error.value)
    assert "geheim12" not in str(error.value)
    assert not (path.parent / "runs/log").exists()
    assert not list((path.parent / "runs").rglob("cell.yaml"))


def test_cells_run_with_the_very_config(path):
    """A question's prompt that speaks of tokens is no secret."""
    instruction = "Give the token: digits only."
    data = "{own: {annotations: own.json, metric: exact, instruction: '" + instruction + "'}}"
    _, cells = run_grid(path, f"evaluation.data={data}", "compare.rows=[sound]")
    cell = cells["sound"]
    assert load_config(cell.folder / "cell.yaml") == cell.config
    assert cell.config.evaluation.data["own"].instruction == instruction
