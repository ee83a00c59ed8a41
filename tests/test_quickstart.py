"""The README's main command on the real embedded default, shrunk: the tuned model must see."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUM_STEPS = 30
NUM_QUESTIONS = 80


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
        f"evaluation.data.quickstart.limit={NUM_QUESTIONS}",
        "evaluation.controls=[]",
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PRISM_TUNE_CACHE"}
    done = subprocess.run(
        [*command.split(), *overrides],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return runs, done.stdout


def read_metrics(run: Path) -> dict[str, float]:
    results = json.loads((run / "evaluation" / "quickstart" / "results.json").read_text())
    assert results["num_examples"] == NUM_QUESTIONS
    metrics: dict[str, float] = results["metrics"]
    return metrics


def test_the_table_the_report_and_the_run_folder_are_printed_last(shrunk_job):
    runs, output = shrunk_job
    lines = [line for line in output.splitlines() if line.strip()]
    page = runs / "quickstart" / "report" / "index.html"
    assert lines[-2:] == [f"Report:     {page}", f"Run folder: {runs / 'quickstart'}"]
    assert "1,970 of 6,566 records" in page.read_text()
    rows = [line for line in lines if line.startswith("|")]
    assert any("PRISM" in row for row in rows)
    assert any("untuned" in row for row in rows)


def test_the_tuned_model_beats_the_untuned(shrunk_job):
    runs, _ = shrunk_job
    tuned, untuned = read_metrics(runs / "quickstart"), read_metrics(runs / "quickstart-untuned")
    assert tuned["accuracy"] > untuned["accuracy"] + 20
    assert tuned["accuracy_open"] > untuned["accuracy_open"]


def test_thirty_percent_of_each_task_was_kept(shrunk_job):
    runs, _ = shrunk_job
    manifest = json.loads((runs / "quickstart" / "selection" / "manifest.json").read_text())
    assert manifest["num_selected"] == 1970
    assert manifest["num_pool"] == 6566
    for counts in manifest["per_source"].values():
        assert abs(counts["kept"] / counts["total"] - 0.30) < 0.001
