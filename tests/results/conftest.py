"""Run folders of the shape a real comparison has."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.table_runs import RunWriter, quickstart_result


@pytest.fixture
def runs(tmp_path) -> RunWriter:
    return RunWriter(tmp_path / "runs")


@pytest.fixture
def four_runs(runs) -> list[Path]:
    """Untuned, Random, PRISM and the whole pool, all of 40 questions."""
    return [
        runs.write("prism", [quickstart_result(15, 20)]),
        runs.write("full", [quickstart_result(20, 20)], records="pool", tune_seconds=400.0),
        runs.write("untuned", [quickstart_result(0, 10)], tuning="none"),
        runs.write("random", [quickstart_result(10, 20)], scorer="random", select_seconds=0.25),
    ]
