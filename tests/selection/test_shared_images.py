"""Of several processes one looks at the pool's images, for all; what they cannot share is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.ranks import Ranks

from prism_tune.cli import app
from prism_tune.data import records

pytestmark = pytest.mark.slow


def refuse(*_, **__):
    raise AssertionError("looks at all images")


def run_without_looking():
    """Rank 1 may not look at the images of a pool."""
    if os.environ["RANK"] == "1":
        records.index_images = refuse
    app.main()


def run_elsewhere():
    """The image folder of rank 1 is another, as on a node that has its own."""
    if os.environ["RANK"] == "1":
        records.find_image_dir = lambda config: Path(config.records).parent
    app.main()


def test_the_others_take_over_what_the_main_process_found(workplace):
    alone = workplace.select()
    options = ["training.records=subset", "training.deepspeed=null", "training.hf.max_steps=2"]
    together = [str(workplace.config_file), f"output_dir={workplace.root}/together", *options]
    for verb in ("select", "train"):
        output = workplace.root / f"{verb}.txt"
        ranks = Ranks([verb, *together], output, num_processes=2, program=run_without_looking)
        ranks.succeed()
    run = workplace.run_dir(output_dir=workplace.root / "together")
    assert workplace.read(run).manifest["subset_sha256"] == alone.manifest["subset_sha256"]
    assert run.checkpoint.is_dir()


def test_a_fault_that_the_main_process_finds_is_said_once(workplace):
    (workplace.images / "3.png").unlink()
    printed = workplace.root / "printed.txt"
    ranks = Ranks(["select", str(workplace.config_file)], printed, num_processes=2)
    assert ranks.leave() == [1, 1]
    said = ranks.printed()
    assert said.count("error: ") == 1
    assert "image_missing" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", ["select", "train"])
def test_a_rank_that_sees_other_images_is_named(workplace, verb):
    command = [verb, str(workplace.config_file), "training.records=pool", "training.deepspeed=null"]
    output = workplace.root / "printed.txt"
    ranks = Ranks(command, output, num_processes=2, program=run_elsewhere)
    assert ranks.leave() == [1, 1]
    size = (workplace.images / "0.png").stat().st_size
    said = ranks.printed()
    assert f"rank 1: size of image 0.png is null for {size}" in said
    assert said.count("error: ") == 1
    assert not workplace.run_dir().root.exists()
