"""The table of docs/selectors.md, "What it costs at LLaVA-665K", against what the plan computes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from prism_tune.compare.estimates import estimate_run
from prism_tune.compare.selection_estimates import evidence_bytes, select_flops
from prism_tune.compare.shapes import PoolSize
from prism_tune.config.load import load_config
from prism_tune.config.sections import SelectionConfig

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "configs/experiments"
POOL = PoolSize(665_298, 624_610, 624_610, 665_298 * 310 * 5)  # 310 tokens of 4 characters, 80 %
ENCODER = {"model": "openai/clip-vit-large-patch14"}


def published(name):
    return load_config(EXPERIMENTS / f"published/{name}.yaml").selection


def llava_7b():
    spec = importlib.util.spec_from_file_location("costs", ROOT / "benchmarks/costs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LLAVA_7B


def read_rows():
    """Of each row: FLOPs, hours, percent of a LoRA tuning, GB (None where it stands blank)."""
    text = (ROOT / "docs/selectors.md").read_text()
    section = text.split("## What it costs at LLaVA-665K")[1].split("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.match(r"\d", cells[1]):
            numbers = [float(cell.removesuffix(" %")) if cell else None for cell in cells[1:]]
            found[cells[0]] = numbers
    return found


@pytest.mark.parametrize(
    ("row", "selection"),
    [
        ("`semdedup` as published, all rows", published("semdedup")),
        (
            "`grand` as published, all rows, with a warm-up of 8 % (1.2e18)",
            published("grand"),
        ),
        ("`d2` as published, all rows", published("d2")),
        ("`perplexity`, `el2n`", SelectionConfig(scorer="el2n")),
        ("`grand`, back through all layers", SelectionConfig(scorer="grand")),
        (
            "`clip_score` (the target's tower for its encoder)",
            SelectionConfig(scorer="clip_score", options=ENCODER),
        ),
        (
            "`self_filter_static` (the target's tower for its encoder)",
            SelectionConfig(scorer="self_filter_static", options=ENCODER),
        ),
    ],
)
def test_costs_are_those_of_the_plan(row, selection):
    shape = llava_7b()
    flops, size = select_flops(selection, shape, POOL), evidence_bytes(selection, shape, POOL)
    tuning = load_config(EXPERIMENTS / "llava15_7b_lora.yaml", ["training.records=pool"])
    share = 100 * flops / estimate_run(tuning, shape, POOL).tune_flops
    told_flops, told_hours, told_share, told_gigabytes = read_rows()[row]
    assert told_flops == pytest.approx(flops, rel=0.02)
    assert told_hours == pytest.approx(flops / 125e12 / 3600, abs=0.06)
    assert told_share == pytest.approx(share, abs=0.06)
    assert told_gigabytes == (pytest.approx(size / 1e9, abs=0.06) if size else None)
