"""The README's main command on the real embedded default, shrunk: four runs, a table, a report."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUM_STEPS = 8
NUM_QUESTIONS = 16  # of fewer a resample may have no right answer, and the table an n/a
ASKED = ("shapes", "digits")
CELLS = ("whole_pool-seed0", "random-0.2-seed0", "prism-0.2-seed0", "kernel_repulsion-0.2-seed0")


def readme_commands() -> list[str]:
    """The lines of README's shell blocks that are commands."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def shrunk_job(tmp_path_factory):
    """The first command of the README, with fewer steps and questions, in another run folder."""
    runs = tmp_path_factory.mktemp("quickstart") / "runs"
    command = next(line for line in readme_commands() if "select_and_finetune.sh" in line)
    overrides = [
        f"output_dir={runs}",
        f"training.hf.max_steps={NUM_STEPS}",
        f"evaluation.benchmarks=[{','.join(ASKED)}]",
        f"compare.metrics=[{','.join(f'{name}.accuracy' for name in ASKED)}]",
        *(f"evaluation.data.{name}.limit={NUM_QUESTIONS}" for name in ASKED),
    ]
    done = subprocess.run(
        [*command.split(), *overrides],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return runs / "quickstart", done.stdout


def test_a_table_without_na_a_verdict_and_the_report_are_printed_last(shrunk_job):
    run, output = shrunk_job
    lines = [line for line in output.splitlines() if line.strip()]
    cell = run / "cells" / CELLS[-1]
    page = cell / "report" / "index.html"
    assert lines[-2:] == [f"Report:     {page}", f"Run folder: {cell}"]
    assert "152 of 760 records" in page.read_text()
    table = [line for line in lines if line.startswith("| ")]
    assert [row.split()[1] for row in table] == [
        *("Selector", "whole_pool", "random", "prism", "kernel_repulsion")
    ]
    assert not [row for row in table if "n/a" in row]
    for selector in ("prism", "kernel_repulsion"):
        verdict = rf"^- {selector} .*random.* points of Rel"
        assert re.search(verdict, output, re.MULTILINE)


def test_twenty_percent_of_each_source_was_kept(shrunk_job):
    for name in CELLS[1:]:
        manifest = json.loads(
            (shrunk_job[0] / "cells" / name / "selection/manifest.json").read_text()
        )
        assert (manifest["num_selected"], manifest["num_pool"]) == (152, 760)
        for counts in manifest["per_source"].values():
            assert abs(counts["kept"] / counts["total"] - 0.20) < 0.01


def test_the_start_sees(shrunk_job):
    """Aligned on captions: after eight steps it reads digits, of which one in ten is guessed."""
    path = shrunk_job[0] / "cells" / CELLS[0] / "evaluation" / "digits" / "results.json"
    assert json.loads(path.read_text())["metrics"]["accuracy"] >= 30
