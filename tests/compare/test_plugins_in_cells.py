"""Scorers and a benchmark of one's own in the cells of a comparison: the command line, as typed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = ROOT / "docs" / "plugins"
INSTALLED = '''"""A scorer of an installed package: the longest answers."""

import numpy as np

from prism_tune import ScoredRecords, Scorer, evidence


def score(context):
    texts = (context.pool[record].turns[-1].text for record in context.records_M)
    return ScoredRecords(np.array([len(text) for text in texts], dtype=np.float64), {})


SCORERS = {"long_winded": Scorer(score, evidence(), keep="high")}
'''


@pytest.fixture
def packages(tmp_path):
    """A folder of installed packages, with one that has an entry point of ours."""
    described = tmp_path / "packages" / "theirs-1.2.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n")
    (described / "entry_points.txt").write_text("[prism_tune.plugins]\ntheirs = their_scorers\n")
    (described.parent / "their_scorers.py").write_text(INSTALLED)
    return described.parent


@pytest.fixture
def path(write_config, questions, tmp_path):
    for name in ("my_scorer.py", "my_benchmark.py"):
        shutil.copy(SHOWN / name, tmp_path)
    with (tmp_path / "words.csv").open("w", newline="") as file:
        rows = [("q1", "0.png", "what is it?", "red circle"), ("q2", "1.png", "and this?", "blue")]
        csv.writer(file).writerows([("id", "image", "question", "words"), *rows])
    words = {"annotations": str(tmp_path / "words.csv"), "image_dir": questions["image_dir"]}
    return write_config(
        {
            "selectors": ["rare_and_hard", {"name": "theirs", "scorer": "long_winded"}],
            "budgets": [0.5],
            "seeds": [0],
            "baseline": "theirs",
            "metrics": ["my_words.word_accuracy"],
        },
        plugins=["my_scorer.py", "my_benchmark.py"],  # beside the config, where one works
        evaluation={"benchmarks": ["my_words"], "data": {"my_words": words}, "dtype": "float32"},
    )


def prism_tune(verb, *options, path, packages):
    found = os.pathsep.join([str(packages), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "prism_tune", verb, path.name, *options],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )


def test_cells_know_plugins_by_file_and_by_entry_point(path, packages):
    """Both score, the benchmark is the column; an edited file would rerun its own cell alone."""
    done = prism_tune("compare", "--launch", "local", path=path, packages=packages)
    assert done.returncode == 0, done.stderr
    cells = path.parent / "runs/tiny/cells"
    used = {}
    for name in ("rare_and_hard", "theirs"):
        manifest = json.loads((cells / f"{name}-0.5-seed0/selection/manifest.json").read_text())
        record = json.loads((cells / f"{name}-0.5-seed0/selection/stage.json").read_text())
        used[name] = record["inputs"]["scorer's plugin"]
        assert manifest["num_selected"] == 14
    assert used["rare_and_hard"].startswith("my_scorer.py ")
    assert used["theirs"] == "theirs their_scorers 1.2"
    rows = json.loads((path.parent / "runs/tiny/comparison.json").read_text())["rows"]
    assert [row["selector"] for row in rows] == ["rare_and_hard", "theirs"]
    assert all(row["performance"] is not None for row in rows)
    assert "my_words" in done.stdout

    file = path.parent / "my_scorer.py"
    file.write_text(file.read_text().replace('keep="high"', 'keep="low"'))
    plan = prism_tune("plan", path=path, packages=packages)
    assert plan.returncode == 0, plan.stderr
    assert "1 of 2 runs are left" in plan.stdout
    assert "rare_and_hard-0.5-seed0: select has finished and would run again: " in plan.stdout
