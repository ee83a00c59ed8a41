"""Which run folders `prism-tune status` lists."""

from __future__ import annotations

import os
import shutil

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


def test_a_file_that_the_run_removes_meanwhile_is_no_fault(runs, monkeypatch):
    """An old checkpoint goes while the folder is looked through."""
    seen, walk = [p for p in (runs / "alone").rglob("*") if p.is_file()], os.walk
    shutil.copytree(runs / "alone" / "training", runs / "alone" / "training" / "checkpoint-9")

    def remove_meanwhile(root):
        found = list(walk(root))
        shutil.rmtree(runs / "alone" / "training" / "checkpoint-9", ignore_errors=True)
        return found

    monkeypatch.setattr(os, "walk", remove_meanwhile)
    status = build_status([runs / "alone"])
    assert status.faults == ()
    ((*_, disk),) = status.table.rows
    assert disk.value == pytest.approx(sum(path.stat().st_size for path in seen) / 1e9)


def test_a_run_alone_is_one_row(runs):
    assert names(runs / "alone") == ["alone"]
