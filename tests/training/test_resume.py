"""kill -9 and the same command again: losses and weights of an uninterrupted run, to the last bit.

Full and LoRA tuning x plain, ZeRO-2, ZeRO-3 x one and two processes. Real processes run the public
command line with the shipped DeepSpeed files. They are killed after a step, within the save of a
checkpoint, and within that of the tuned model. Of two processes one has only text at some steps.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from ranks import Ranks
from safetensors.torch import save_file
from training_runs import losses, weights, write_mixed_pool, write_run

from prism_tune.run_dir import RunDir, fingerprint_file, read_json
from prism_tune.training.progress import read_log

ZERO = {
    "plain": None,
    "zero2": "configs/deepspeed/zero2.json",
    "zero3": "configs/deepspeed/zero3.json",
}
NUM_STEPS = 6
# Four steps are an epoch and every second step is saved: 3 goes on within the first epoch, 5 at its
# end, `save 4` from before the checkpoint that was not finished, `final` with no step left.
KILLS = [("step", 3), ("step", 5), ("save", 4), ("final", NUM_STEPS)]
CELLS = list(itertools.product(("full", "lora"), ZERO, (1, 2)))


@dataclass(frozen=True)
class Cell:
    whole: RunDir
    parted: RunDir
    resumed_output: str
    kill: tuple[str, int]


def launch(run, num_processes, kill=None):
    output = run.root / f"output-{'killed' if kill else 'resumed'}.txt"
    arguments = ["train", str(run.root / "experiment.yaml")]
    return Ranks(arguments, output, num_processes=num_processes, kill=kill)


@pytest.fixture(scope="module")
def cell(tiny_llava_dir, drawn_pool, tmp_path_factory):
    """`cell(tuning, zero, num_processes)` -> its runs, which are made once."""
    folder = tmp_path_factory.mktemp("resume")
    pool = write_mixed_pool(folder / "mixed.json", drawn_pool, num_images=4)
    made = {}

    def make(tuning, zero, num_processes):
        key = (tuning, zero, num_processes)
        if key not in made:
            made[key] = run_cell(*key, folder / "-".join(map(str, key)), pool)
        return made[key]

    def run_cell(tuning, zero, num_processes, folder, pool):
        hf = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2 // num_processes,
            "gradient_checkpointing": num_processes == 2,
            "max_steps": NUM_STEPS,
            "save_total_limit": None,
        }
        (_, whole), (_, parted) = (
            write_run(
                folder,
                name,
                model={"path": str(tiny_llava_dir)},
                file=pool,
                image_dir=drawn_pool.parent / "images",
                hf=hf,
                tuning=tuning,
                batching="random",
                deepspeed=ZERO[zero],
            )
            for name in ("whole", "parted")
        )
        kill = KILLS[CELLS.index((tuning, zero, num_processes)) % len(KILLS)]
        uninterrupted = launch(whole, num_processes)
        if num_processes == 2:
            uninterrupted.succeed()  # before the others, which would share its two cores
        launch(parted, num_processes, kill).be_killed()
        assert not (parted.training / "stage.json").exists()
        uninterrupted.succeed()
        resumed = launch(parted, num_processes)
        resumed.succeed()
        return Cell(whole, parted, resumed.printed(), kill)

    return make


@pytest.mark.parametrize("key", CELLS, ids=lambda key: "-".join(map(str, key)))
def test_a_killed_run_goes_on_as_if_nothing_had_happened(cell, key):
    made = cell(*key)
    resumed_step = {("step", 3): 2, ("step", 5): 4, ("save", 4): 2}.get(made.kill, NUM_STEPS)
    assert f"checkpoint-{resumed_step}\n" in "".join(made.resumed_output.split(" "))
    assert len(losses(made.whole)) == NUM_STEPS
    assert losses(made.parted) == losses(made.whole)
    expected, got = weights(made.whole.checkpoint), weights(made.parted.checkpoint)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
