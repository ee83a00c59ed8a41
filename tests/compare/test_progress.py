"""What is said while cells are at work."""

from __future__ import annotations

import logging

import pytest

from prism_tune.compare.cells import Cell
from prism_tune.compare.progress import Progress


@pytest.fixture
def log(caplog):
    logging.getLogger("prism_tune").propagate = True
    caplog.set_level(logging.INFO, logger="prism_tune")
    return caplog


def make_cell(tmp_path, name):
    from prism_tune.config.load import load_config

    config = load_config("preset:quickstart", [f"name={name}", "compare=null"])
    return Cell(name, None, 0, config, ("train",), tmp_path / name)


def test_it_is_said_which_cell_is_where_and_how_far(tmp_path, log):
    first, second = make_cell(tmp_path, "whole_pool-seed0"), make_cell(tmp_path, "random-seed0")
    progress = Progress(3)
    progress.begin(first, "train")
    first.folder.mkdir()
    first.output.write_text(
        "loading\r 3%|  | 8/287 [00:10<03:00]\r 4%| | 12/287 [00:15<03:00, loss=1]"
    )
    progress.begin(second, "select")
    progress.tell()
    assert (
        "compare: 0/3 after 0:00 min; at work: whole_pool-seed0 train 12/287, random-seed0 select"
        in (" ".join(log.text.split()))
    )
    progress.report(second, "no such file")
    progress.tell()
    said = log.messages[-1]
    assert said.startswith("compare: 1/3 after")
    assert "random-seed0" not in said


def test_steps_are_known_where_no_terminal_draws_a_bar(tmp_path, log):
    cell = make_cell(tmp_path, "random-seed0")
    cell.folder.mkdir()
    lines = [f"[07:00:0{n}] prism_tune: training, step: {n} of 30 (5 %)" for n in (1, 2)]
    cell.output.write_text("\n".join(lines))
    progress = Progress(1)
    progress.begin(cell, "train")
    progress.tell()
    assert log.messages[-1].endswith("at work: random-seed0 train 2/30")


def test_a_grid_of_hours_says_less_often_where_it_stands():
    assert Progress(4).pause_seconds == 15
    assert Progress(110).pause_seconds == 110
