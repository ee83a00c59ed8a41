"""Cells in processes of their own: crashes, mistakes, environment, features handed on."""

from __future__ import annotations

import os
import sys
import time

import pytest

from prism_tune.cli.compare import run_verb
from prism_tune.compare.cells import plan_cells
from prism_tune.compare.workers import Task, Workers, worker_environment
from prism_tune.config.load import load_config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir

SELECTORS = ["random", "length", "prism", "leverage", "kcenter"]


def act(verb, config, run):
    """Stands for the verbs: one selector dies, one has a defect, one a mistake in its config."""
    scorer = config.selection.scorer
    sys.stdout.write(f"{verb} of {config.name}\n")
    if verb == "train" and scorer == "length":
        os._exit(9)
    if verb == "train" and scorer == "prism":
        raise ZeroDivisionError("a defect")
    if verb == "train" and scorer == "leverage":
        raise UserError("data.records: no such file")
    (run.root / verb).write_text(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}")


def read_features(verb, config, run):
    """Leaves features where the name says so, and says which ones it sees."""
    if config.selection.scorer == "prism" and verb == "select":
        time.sleep(0.5)  # the others have to wait for it
        run.features.mkdir(parents=True)
        (run.features / "manifest.json").write_text("{}")
    (run.root / verb).write_text(str(sorted(p.name for p in run.selection.glob("*/*"))))


@pytest.fixture
def cells(write_config, tmp_path):
    config = load_config(write_config({"selectors": SELECTORS}))
    return plan_cells(config, RunDir(tmp_path / "runs/tiny"))


@pytest.fixture
def ended(cells):
    errors = {}
    with Workers(act, num_processes=1) as workers:
        workers.run(
            [Task(cell) for cell in cells], lambda t, e: errors.update({t.cell.selector: e})
        )
    return errors


def test_a_cell_that_dies_fails_and_the_others_go_on(ended, cells, capfd):
    assert ended["random"] is None
    assert ended["kcenter"] is None
    assert ended["length"] == "the process ended with exit code 9: train of length-0.3-seed0"
    assert ended["prism"].endswith("exit code 1: ZeroDivisionError: a defect")
    assert ended["leverage"] == "data.records: no such file"
    assert [(cell.run.root / "evaluate").exists() for cell in cells] == [1, 0, 0, 0, 1]
    # A mistake of the user's costs no new process.
    pids = [(cell.run.root / "select").read_text().split()[0] for cell in cells]
    assert len(set(pids)) == 3
    assert pids[3] == pids[4]
    assert "Traceback" in cells[2].output.read_text()
    assert cells[0].output.read_text().splitlines() == [
        f"{verb} of random-0.3-seed0" for verb in ("select", "train", "evaluate")
    ]
    assert capfd.readouterr().out == ""


def test_two_processes_share_the_cells_and_the_threads(cells, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    good = [cell for cell in cells if cell.selector in ("random", "kcenter")]
    with Workers(act, num_processes=2) as workers:
        workers.run([Task(cell) for cell in good], lambda task, error: None)
    seen = [(cell.run.root / "evaluate").read_text().split() for cell in good]
    assert [threads for _, threads in seen] == ["3", "3"]
    assert seen[0][0] != seen[1][0]
    assert "OMP_NUM_THREADS" not in os.environ


def test_devices_are_dealt_out_and_a_single_process_sees_all(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    dealt = [worker_environment(n, 3)["CUDA_VISIBLE_DEVICES"] for n in range(3)]
    assert dealt == ["2", "5", "2"]
    assert "OMP_NUM_THREADS" not in worker_environment(0, 3)  # the user's own counts
    assert worker_environment(0, 1) == {}


def test_cells_wait_for_the_features_they_read_and_the_others_go_first(cells):
    by_name = {cell.selector: cell for cell in cells}
    source = by_name["prism"]
    tasks = [Task(source), *(Task(by_name[name], source) for name in ("leverage", "kcenter"))]
    order = []

    def finish(task, error):
        task.cell.finish(error)
        order.append(task.cell.selector)

    with Workers(read_features, num_processes=2) as workers:
        workers.run([*tasks, Task(by_name["random"])], finish)
    assert order[:2] == ["random", "prism"]
    assert set(order[2:]) == {"leverage", "kcenter"}
    seen = {name: (cell.run.root / "select") for name, cell in by_name.items()}
    assert seen["leverage"].read_text() == seen["kcenter"].read_text() == "['manifest.json']"
    assert seen["random"].read_text() == "[]"


def test_a_cell_whose_features_failed_computes_its_own(cells):
    length = cells[1]
    errors = {}

    def finish(task, error):
        task.cell.finish(error)
        errors[task.cell.selector] = error

    with Workers(act, num_processes=1) as workers:
        workers.run([Task(length), Task(cells[0], length)], finish)
    assert errors["length"] is not None
    assert errors["random"] is None


def test_deepspeed_trains_in_cell_after_cell_of_one_worker(write_config, tmp_path):
    """Twice in one process it would miss the process groups of its first training."""
    config = load_config(
        write_config({"selectors": ["random", "length"]}),
        ["training.deepspeed=configs/deepspeed/zero2.json"],
    )
    errors = {}
    with Workers(run_verb, num_processes=1) as workers:
        workers.run(
            [Task(cell) for cell in plan_cells(config, RunDir(tmp_path / "runs/tiny"))],
            lambda task, error: errors.update({task.cell.selector: error}),
        )
    assert errors == {"random": None, "length": None}
