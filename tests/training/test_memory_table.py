"""The memory table of docs/training.md is its own formula, and lists every preset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.training_runs import paper_presets

ROOT = Path(__file__).parents[2]
ROW = re.compile(
    r"^\| (`.+`) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.M
)
COLUMNS = ((0, 1), (2, 8), (3, 8), (3, 16))  # ZeRO stage, GPUs


def rows():
    return ROW.findall((ROOT / "docs" / "training.md").read_text())


def estimate(weights, trained, stage, num_gpus):
    shares = [num_gpus if stage >= first else 1 for first in (3, 2, 1)]
    return 2 * weights / shares[0] + 2 * trained / shares[1] + 12 * trained / shares[2]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_number_is_the_formulas(row):
    _, weights, trained, *shown = row
    for (stage, num_gpus), number in zip(COLUMNS, shown, strict=True):
        assert abs(estimate(float(weights), float(trained), stage, num_gpus) - int(number)) <= 0.51


def test_every_preset_has_a_row():
    listed = {name for row in rows() for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == paper_presets()
