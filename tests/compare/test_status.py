"""Which run folders `prism-tune status` lists."""

from __future__ import annotations

import pytest
from support.table_runs import RunWriter

from prism_tune.compare.status import build_status


@pytest.fixture
def runs(tmp_path):
    """`runs/`: a run, and a comparison of two cells whose evidence lies beside them."""
    RunWriter(tmp_path / "runs").write("alone", [])
    RunWriter(tmp_path / "runs").write("grid", [], records="pool", timings=[])
    for name in ("random-0.2-seed0", "prism-0.2-seed0"):
        RunWriter(tmp_path / "runs" / "grid" / "cells").write(name, [])
    (tmp_path / "runs" / "grid" / "cells" / "evidence").mkdir()
    return tmp_path / "runs"


def names(folder):
    return [row[0].text for row in build_status([folder]).table.rows]


def test_the_cells_of_a_comparison_are_listed_behind_it(runs):
    assert names(runs / "grid") == ["grid", "prism-0.2-seed0", "random-0.2-seed0"]


def test_also_where_it_stands_among_other_runs(runs):
    assert names(runs) == ["alone", "grid", "prism-0.2-seed0", "random-0.2-seed0"]


def test_also_where_the_comparison_has_no_stage_of_its_own(runs):
    for name in ("timings.json", "training/stage.json"):
        (runs / "grid" / name).unlink()
    assert names(runs / "grid") == ["prism-0.2-seed0", "random-0.2-seed0"]


def test_a_run_alone_is_one_row(runs):
    assert names(runs / "alone") == ["alone"]
