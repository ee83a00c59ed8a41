"""Ranks that never meet, or do not do the same: said within minutes, once, naming what differs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from support.ranks import Ranks, miss_the_meeting

from prism_tune.cli import app

pytestmark = pytest.mark.slow


def test_a_rank_that_ends_before_the_others_meet_it_is_named(tmp_path):
    ranks = Ranks([], tmp_path / "printed.txt", num_processes=3, program=miss_the_meeting)
    assert ranks.leave() == [1, 1, 0]
    said = ranks.printed()
    assert said.count("error: rank 2 of 3 did not come within 1 seconds") == 1


@pytest.fixture
def config(tiny_llava_dir, drawn_pool, tmp_path):
    content = {
        "name": "run",
        "output_dir": str(tmp_path / "runs"),
        "model": {"path": str(tiny_llava_dir), "dtype": "float32"},
        "data": {
            "records": str(drawn_pool),
            "image_dir": str(drawn_pool.parent / "images"),
            "num_workers": 0,
        },
        "training": {"records": "pool", "deepspeed": None, "hf": {"max_steps": 2}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start_otherwise(verb, path, output, override):
    """Rank 1 is started with another setting."""
    rank_file = output.with_suffix(".json")
    rank_file.write_text(json.dumps([verb, str(path), override]))
    return Ranks([str(rank_file)], output, num_processes=2, program=call_otherwise)


def call_otherwise():
    (verb, path, override) = json.loads(Path(sys.argv[1]).read_text())
    sys.argv = ["prism-tune", verb, path, *([override] if os.environ["RANK"] == "1" else [])]
    app.main()


@pytest.mark.parametrize(
    ("verb", "override", "says"),
    [
        ("train", "seed=7", "rank 1: seed is 7 for 0"),
        ("train", "training.hf.max_steps=9", 'rank 1: training.hf is {"max_steps":9} for'),
        ("select", "selection.budget=0.5", "rank 1: selection.budget is 0.5 for 0.3"),
        ("evaluate", "evaluation.profile=lmms_eval", "rank 1: evaluation.profile is"),
    ],
)
def test_ranks_that_were_given_something_else(config, tmp_path, verb, override, says):
    if verb == "evaluate":
        content = yaml.safe_load(config.read_text())
        content["training"]["tuning"] = "none"
        config.write_text(yaml.safe_dump(content))
    ranks = start_otherwise(verb, config, tmp_path / "printed.txt", override)
    assert ranks.leave() == [1, 1]
    said = ranks.printed()
    assert said.count("error: the processes do not do the same") == 1
    assert says in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()
