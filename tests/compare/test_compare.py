"""`prism-tune compare` at its smallest: five selectors, killed on the way and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.tiny_runs import tiny_config
from support.verbs import run_verb

ROOT = Path(__file__).parents[2]
SELECTORS = [
    "random",
    {"scorer": "length", "keep": "high"},
    "prism",
    {"name": "sharp", "scorer": "kernel_prism", "options": {"alpha": 3.0}},
    {"name": "broken", "scorer": "prism", "layer": 99},
]


def compare(path: Path) -> subprocess.CompletedProcess[str]:
    """From nothing, imports and all."""
    command = [sys.executable, "-m", "prism_tune", "compare", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def write_comparison(folder: Path, model: Path, pool: Path, questions: dict[str, str]) -> Path:
    planted = folder / "planted.json"
    planted.write_text(json.dumps({"shape-1": {"kind": "copy", "of": "shape-0"}}))
    config = tiny_config(folder, model, pool, questions)
    config["compare"] = {
        "selectors": SELECTORS,
        "budgets": [0.5],
        "seeds": [0, 1],
        "metrics": ["quickstart.accuracy"],
        "whole_pool": True,
        "planted": str(planted),
    }
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def cell_files(runs: Path) -> dict[Path, int]:
    """The state file of every finished stage of every cell, and when it was written."""
    return {p: p.stat().st_mtime_ns for p in runs.glob("tiny/cells/*/*/**/stage.json")}


def signal_when(path: Path, sign: str, number: signal.Signals, *arguments: str) -> int:
    """Start the comparison, and send all its processes a signal when such a file is there."""
    with subprocess.Popen(
        [sys.executable, "-m", "prism_tune", "compare", str(path), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # As at a terminal: tests in a shell's background inherit an interrupt that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as started:
        while started.poll() is None and not list((path.parent / "runs").glob(sign)):
            time.sleep(0.1)
        assert started.poll() is None, started.communicate()[0]
        os.killpg(started.pid, number)
        started.communicate(timeout=30)
        return started.returncode


@pytest.fixture(scope="module")
def finished(tiny_llava_dir, drawn_pool, questions, tmp_path_factory):
    """Killed after the first cell, then run to its end: (config, files at the kill, the result)."""
    folder = tmp_path_factory.mktemp("compare")
    path = write_comparison(folder, tiny_llava_dir, drawn_pool, questions)
    signal_when(path, "tiny/cells/*/cell.json", signal.SIGKILL)
    at_kill = cell_files(folder / "runs")
    return path, at_kill, compare(path)


@pytest.fixture(scope="module")
def found(finished):
    path, _, done = finished
    assert done.returncode == 1, done.stderr  # a row has failed
    return json.loads((path.parent / "runs/tiny/comparison.json").read_text())


def rows(found, budget):
    return {row["selector"]: row for row in found["rows"] if row["budget"] == budget}


def test_every_selector_has_a_row_and_the_broken_one_says_why(found):
    at_half = rows(found, 0.5)
    assert list(at_half) == [*("random", "length", "prism", "sharp", "broken")]
    assert [name for name, row in at_half.items() if row["failures"]] == ["broken"]
    assert "layer" in at_half["broken"]["failures"]["0"]
    assert at_half["broken"]["performance"] is None
    assert all(row["seeds_finished"] == [0, 1] for n, row in at_half.items() if n != "broken")


def test_what_was_finished_at_the_kill_is_not_run_again(finished):
    path, at_kill, _ = finished
    assert at_kill
    now = cell_files(path.parent / "runs")
    assert {file: now[file] for file in at_kill} == at_kill
    assert len(now) > len(at_kill)


def test_a_cell_is_an_ordinary_run(finished, tmp_path):
    """The same files as the three verbs make, to the byte where they hold no time."""
    path, _, _ = finished
    cell = path.parent / "runs/tiny/cells/prism-0.5-seed1"
    for verb in ("select", "train"):
        overrides = [f"output_dir={tmp_path}", "name=alone"]
        done = run_verb(verb, str(cell / "cell.yaml"), *overrides, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    for file in ("selection/subset.json", "training/final/adapter_model.safetensors"):
        assert (cell / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()


def test_the_pool_is_audited_once_for_all(finished):
    path, _, _ = finished
    audits = list((path.parent / "runs").rglob("audit/audit.json"))
    assert audits == [path.parent / "runs/tiny/audit/audit.json"]


def test_features_are_computed_once_and_charged_to_each(finished, found):
    path, _, _ = finished
    cells = path.parent / "runs/tiny/cells"
    readers = sorted(cells.glob("*/selection/evidence/features/shard-*"))
    assert len(readers) == 4  # two selectors on features, two seeds
    assert len({file.stat().st_ino for file in readers}) == 1
    at_half = rows(found, 0.5)
    charged = {}
    for name in ("prism", "sharp"):
        entries = json.loads((cells / f"{name}-0.5-seed1/timings.json").read_text())
        (charged[name],) = [e["device_seconds"] for e in entries if e.get("evidence") == "features"]
        assert at_half[name]["select_seconds"] > charged[name] > 0
    assert len(set(charged.values())) == 1
    assert at_half["random"]["select_seconds"] < charged["prism"]


def test_subsets_are_described(found):
    at_half = rows(found, 0.5)
    sources = {"shape": 8 / 14, "colour": 4 / 14, "text": 2 / 14}
    assert at_half["prism"]["sources"] == pytest.approx(sources)
    overlap = found["overlap"]["0.5"]
    assert overlap["prism"]["prism"] == 1
    assert overlap["prism"]["random"] == overlap["random"]["prism"] < 1
    assert overlap["broken"]["random"] is None
    assert at_half["random"]["removed"].keys() == {"copy"}


def test_performance_differences_and_cost_are_those_of_the_cells(finished, found):
    path, _, _ = finished
    cells = path.parent / "runs/tiny/cells"

    def accuracies(name):
        files = [cells / f"{name}-seed{s}/evaluation/quickstart/results.json" for s in (0, 1)]
        return [json.loads(file.read_text())["metrics"]["accuracy"] for file in files]

    for name, row in rows(found, 0.5).items():
        if name == "broken":
            continue
        own, random = accuracies(f"{name}-0.5"), accuracies("random-0.5")
        assert row["performance"]["mean"] == pytest.approx(sum(own) / 2)
        if name == "random":
            assert row["difference"] is None
            continue
        gaps = [a - b for a, b in zip(own, random, strict=True)]
        assert row["difference"]["mean"] == pytest.approx(sum(gaps) / 2)
        half = 12.7062047 * abs(gaps[0] - gaps[1]) / 2
        assert row["difference"]["high"] == pytest.approx(sum(gaps) / 2 + half)
    assert found["rows"][0]["selector"] == "whole_pool"
    page = (path.parent / "runs/tiny/comparison.html").read_text()
    assert all(name in page for name in ("prism", "sharp"))


def test_the_printed_table_is_the_written_one_and_needs_no_run(finished):
    """What subsets are made of stands before it, in the file alone."""
    path, _, done = finished
    written = (path.parent / "runs/tiny/comparison.md").read_text()
    results = written[written.rindex("## Budget 50 %") :]
    assert "| Selector " in results
    assert results in done.stdout
    again = run_verb("compare", str(path), "--only-table", cwd=ROOT)
    assert results in again.stdout
    assert "to run" not in again.stderr
    for line in ("| broken", "failed: broken, Budget 50 %, seed 0:", "10 of 12 cells"):
        assert line in written


def test_an_interrupt_ends_it_at_once_and_is_no_failure(finished):
    path, _, _ = finished
    begun = "interrupted/cells/*/*"
    assert signal_when(path, begun, signal.SIGINT, "name=interrupted") == 130
    assert list((path.parent / "runs/interrupted/cells").glob("*/cell.json")) == []
