"""kill -9 and the same command again: losses and weights of an uninterrupted run, to the last bit.

Any two together of full and LoRA tuning, of plain, ZeRO-2 and ZeRO-3, of one and two processes.
Real processes run the public command line with the shipped DeepSpeed files. Most are killed: after
a step, within the saving of a checkpoint, and within that of the tuned model. Of two processes one
has only text at some steps of full tuning; those of LoRA take records by modality and length.
"""

from __future__ import annotations

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
# Four steps are an epoch, three of LoRA on two processes, and every second one is saved. Where the
# main process kills itself, and the step to go on from: within the first epoch, at its end (within
# the second one of three), before a checkpoint that was not finished, and with no step left.
KILLS = [(("step", 3), 2), (("step", 5), 4), (("save", 4), 2), (("final", 6), 6)]
# Those that are killed: any two of tuning, ZeRO and number of processes together, and each kill.
KILLED = {
    ("full", "plain", 1): KILLS[1],
    ("full", "zero2", 2): KILLS[3],
    ("full", "zero3", 1): KILLS[0],
    ("lora", "plain", 2): KILLS[1],
    ("lora", "zero2", 1): KILLS[1],
    ("lora", "zero3", 2): KILLS[2],
}
# And what is left alone: what they are compared with, and the costliest.
CELLS = [*KILLED, ("lora", "plain", 1), ("full", "plain", 2), ("full", "zero3", 2)]
FULL = [key for key in CELLS if key[0] == "full" and key != ("full", "plain", 1)]
LORA = [key for key in CELLS if key[0] == "lora" and key[1] != "plain"]
PLAIN_RELOAD = Path(__file__).parents[1] / "support" / "plain_reload.py"


def name_cell(key):
    return "-".join(map(str, key))


@dataclass(frozen=True)
class Cell:
    """A run that was left alone; `config` is its experiment's."""

    config: Config
    whole: RunDir
    printed: str


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp("two_layers"), num_layers=2)


@pytest.fixture(scope="module")
def written(model_dir, drawn_pool, tmp_path_factory):
    """`written(name, tuning, zero, num_processes)`: a run's config and folder."""
    folder = tmp_path_factory.mktemp("resume")
    pools = {
        batching: write_mixed_pool(folder / f"{batching}.json", drawn_pool, num_images=number)
        for batching, number in (("random", 4), ("modality_length", 3))
    }

    def write(name, tuning, zero, num_processes, hf=None, **training):
        is_grouped = tuning == "lora" and num_processes == 2
        batching = "modality_length" if is_grouped else "random"
        return write_run(
            folder / f"{tuning}-{zero}-{num_processes}",
            name,
            model={"path": str(model_dir)},
            file=pools[batching],
            image_dir=drawn_pool.parent / "images",
            tuning=tuning,
            batching=batching,
            deepspeed=ZERO[zero],
            hf={
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 2 // num_processes,
                "activation_checkpointing": num_processes == 2,
                "max_steps": NUM_STEPS,
                "save_total_limit": None,
                **(hf or {}),
            },
            **training,
        )

    return write


@pytest.fixture(scope="module")
def cells(written):
    """`cells(tuning, zero, num_processes)`: the run that was left alone, which is made once."""
    made = {}

    def make(*key):
        if key not in made:
            config, run = written("whole", *key)
            ranks = launch(run, key[-1], "whole")
            ranks.succeed()
            made[key] = Cell(config, run, ranks.printed())
        return made[key]

    return make


def launch(run, num_processes, name, kill=None):
    arguments = ["train", str(run.root / "experiment.yaml")]
    return Ranks(arguments, run.root / f"{name}.txt", num_processes=num_processes, kill=kill)


@pytest.mark.parametrize("key", KILLED, ids=name_cell)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(cells, written, key):
    cell, (kill, step) = cells(*key), KILLED[key]
    _, parted = written("parted", *key)
    launch(parted, key[-1], "killed", kill).be_killed()
    assert not (parted.training / "stage.json").exists()
    launch(parted, key[-1], "resumed").succeed()
    assert f"checkpoint-{step}\n" in parted.log.read_text().replace(" ", "")
    assert losses(parted) == losses(cell.whole)
    expected, got = weights(cell.whole.checkpoint), weights(parted.checkpoint)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "key",
    [("lora", "plain", 1), ("full", "zero3", 1)],
    ids=name_cell,
)
def test_a_run_killed_after_its_last_step_still_ends_with_the_best_checkpoint(written, key):
    """What it was about to save is what an uninterrupted run saves. Best is the highest loss."""
    hf = {
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": True,
        "max_steps": 4,
    }
    _, run = written("best", *key, hf=hf, validation=0.3)
    launch(run, key[-1], "killed", ("final", 4)).be_killed()
    expected = weights(run.training / "final.partial")
    launch(run, key[-1], "resumed").succeed()
    assert "goes on from" in run.log.read_text()
    got, last = weights(run.checkpoint), weights(run.training / "checkpoint-4")
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert not all(torch.equal(got[name], last[name]) for name in last)


@pytest.mark.parametrize("key", CELLS, ids=name_cell)
def test_every_step_is_logged_and_nothing_deprecated_is_called(cells, key):
    cell = cells(*key)
    assert "is deprecated. Please use `torch.distributed" not in cell.printed
    assert len(losses(cell.whole)) == NUM_STEPS


@pytest.mark.parametrize("key", FULL, ids=name_cell)
def test_full_tuning_on_mixed_records_has_the_losses_of_one_plain_process(cells, key):
    """Also where one of two processes has only text, and with checkpointed activations."""
    cell, plain = cells(*key), cells("full", "plain", 1)
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


@pytest.mark.parametrize("key", LORA, ids=name_cell)
def test_lora_with_dropout_has_the_losses_of_plain_processes(cells, key):
    cell, plain = cells(*key), cells("lora", "plain", key[-1])
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
    for key in FULL:
        torch.testing.assert_close(
            logits_of[key, "final"],
            logits_of[("full", "plain", 1), "final"],
            rtol=1e-2,
            atol=1e-2,
        )


@pytest.mark.parametrize("key", CELLS, ids=name_cell)
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
