"""kill -9 and the same command again: losses and weights of an uninterrupted run, to the last bit.

Full and LoRA tuning x plain, ZeRO-2, ZeRO-3 x one and two processes. Real processes run the public
command line with the shipped DeepSpeed files. They are killed after a step, within the saving of a
checkpoint, and within that of the tuned model. Of two processes one has only text at some steps.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.ranks import Ranks
from support.tiny import save_tiny_llava
from support.training_runs import losses, weights, write_mixed_pool, write_run

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.models.processor import resolve_template
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.written import read_log

ZERO = {
    "plain": None,
    "zero2": "configs/deepspeed/zero2.json",
    "zero3": "configs/deepspeed/zero3.json",
}
NUM_STEPS = 6
# Four steps are an epoch and every second one is saved. Where the main process kills itself, and
# the step to go on from: within the first epoch, at its end, before a checkpoint that was not
# finished, and with no step left.
KILLS = [(("step", 3), 2), (("step", 5), 4), (("save", 4), 2), (("final", 6), 6)]
CELLS = list(itertools.product(("full", "lora"), ZERO, (1, 2)))
PLAIN_RELOAD = Path(__file__).parents[1] / "support" / "plain_reload.py"


@dataclass(frozen=True)
class Cell:
    """One run that was left alone, and one of the same config that was killed and resumed."""

    config: Config
    whole: RunDir
    parted: RunDir
    printed: str


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp("two_layers"), num_layers=2)


@pytest.fixture(scope="module")
def cells(model_dir, drawn_pool, tmp_path_factory):
    """`cells(tuning, zero, num_processes)`: the runs, which are made once."""
    folder = tmp_path_factory.mktemp("resume")
    pool = write_mixed_pool(folder / "mixed.json", drawn_pool, num_images=4)
    made = {}

    def make(*key):
        if key not in made:
            runs = [write(name, *key) for name in ("whole", "parted")]
            made[key] = run_cell(*runs, *key)
        return made[key]

    def write(name, tuning, zero, num_processes):
        return write_run(
            folder / f"{tuning}-{zero}-{num_processes}",
            name,
            model={"path": str(model_dir)},
            file=pool,
            image_dir=drawn_pool.parent / "images",
            tuning=tuning,
            batching="random",
            deepspeed=ZERO[zero],
            hf={
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 2 // num_processes,
                "activation_checkpointing": num_processes == 2,
                "max_steps": NUM_STEPS,
                "save_total_limit": None,
            },
        )

    return make


def launch(run, num_processes, name, kill=None):
    arguments = ["train", str(run.root / "experiment.yaml")]
    return Ranks(arguments, run.root / f"{name}.txt", num_processes=num_processes, kill=kill)


def run_cell(whole, parted, *key):
    num_processes = key[-1]
    uninterrupted = launch(whole[1], num_processes, "whole")
    if num_processes == 2:
        uninterrupted.succeed()  # before the next, which would compete for the processors
    kill, _ = KILLS[CELLS.index(key) % len(KILLS)]
    launch(parted[1], num_processes, "killed", kill).be_killed()
    uninterrupted.succeed()
    assert not (parted[1].training / "stage.json").exists()
    launch(parted[1], num_processes, "resumed").succeed()
    return Cell(whole[0], whole[1], parted[1], uninterrupted.printed())


@pytest.mark.parametrize("key", CELLS, ids=lambda key: "-".join(map(str, key)))
def test_a_killed_run_goes_on_as_if_nothing_had_happened(cells, key):
    cell = cells(*key)
    _, step = KILLS[CELLS.index(key) % len(KILLS)]
    assert f"checkpoint-{step}\n" in cell.parted.log.read_text().replace(" ", "")
    assert "is deprecated. Please use `torch.distributed" not in cell.printed
    assert len(losses(cell.whole)) == NUM_STEPS
    assert losses(cell.parted) == losses(cell.whole)
    expected, got = weights(cell.whole.checkpoint), weights(cell.parted.checkpoint)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("zero", "num_processes"), itertools.product(ZERO, (1, 2)))
def test_full_tuning_on_mixed_records_has_the_losses_of_one_plain_process(
    cells, zero, num_processes
):
    """Also where one of two processes has only text, and with checkpointed activations."""
    cell, plain = cells("full", zero, num_processes), cells("full", "plain", 1)
    assert losses(cell.whole) == pytest.approx(losses(plain.whole), rel=1e-4)
    expected, got = weights(plain.whole.checkpoint), weights(cell.whole.checkpoint)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4)
    of_each_step = [
        {key for key in line if key.startswith("loss/")}
        for line in read_log(cell.whole.training / "log.jsonl")
    ]
    assert any("loss/text" in sources and len(sources) == 2 for sources in of_each_step)


@pytest.mark.parametrize(("zero", "num_processes"), itertools.product(("zero2", "zero3"), (1, 2)))
def test_lora_with_dropout_has_the_losses_of_plain_processes(cells, zero, num_processes):
    cell, plain = cells("lora", zero, num_processes), cells("lora", "plain", num_processes)
    assert losses(cell.whole) == pytest.approx(losses(plain.whole), rel=1e-4)
    expected, got = weights(plain.whole.checkpoint), weights(cell.whole.checkpoint)
    assert {n: t.shape for n, t in got.items()} == {n: t.shape for n, t in expected.items()}


def test_every_checkpoint_loads_where_prism_tune_is_not_installed(cells, model_dir, tmp_path):
    saved = {
        (key, name): cells(*key).whole.training / name
        for key in CELLS
        for name in ("checkpoint-2", "checkpoint-6", "final")
    }
    output = tmp_path / "logits.safetensors"
    done = subprocess.run(
        [sys.executable, str(PLAIN_RELOAD), str(output), str(model_dir), *map(str, saved.values())],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    untuned, *logits = (load_file(output)[str(number)] for number in range(len(saved) + 1))
    logits_of = dict(zip(saved, logits, strict=True))
    for key in CELLS:
        early, last, final = (
            logits_of[key, name] for name in ("checkpoint-2", "checkpoint-6", "final")
        )
        assert torch.isfinite(final).all()
        assert not torch.allclose(early, untuned, atol=1e-4)
        assert not torch.allclose(early, final, atol=1e-4)
        assert torch.equal(last, final)
    for zero, num_processes in itertools.product(ZERO, (1, 2)):
        torch.testing.assert_close(
            logits_of[("full", zero, num_processes), "final"],
            logits_of[("full", "plain", 1), "final"],
            rtol=1e-2,
            atol=1e-2,
        )


@pytest.mark.parametrize("key", CELLS, ids=lambda key: "-".join(map(str, key)))
def test_every_checkpoint_tells_its_config_and_its_data(cells, key):
    cell = cells(*key)
    inputs = read_json(cell.whole.training / "stage.json")["inputs"]
    for name in ("checkpoint-2", "checkpoint-4", "checkpoint-6", "final"):
        directory = cell.whole.training / name
        assert load_config(directory / "prism_tune.yaml") == resolve_template(cell.config)
        provenance = read_json(directory / "provenance.json")
        assert provenance["data_fingerprint"] == inputs["records"]
        assert provenance["inputs"] == inputs
        assert (directory / "chat_template.jinja").exists()
        assert not list(directory.glob("training_args.bin"))
        for tensor in weights(directory).values():
            assert tensor.numel() > 0
            assert torch.isfinite(tensor).all()
