"""A small /dev/shm: fewer workers, said, in place of a training that waits for ever."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import TrainingArguments

from prism_tune.run import worker_processes
from prism_tune.run.worker_processes import fit_workers
from prism_tune.training.batches import fit_loader
from prism_tune.training.train import train

Usage = namedtuple("Usage", "total used free")
MIB = 1 << 20


@pytest.fixture
def free(monkeypatch, tmp_path):
    def set_free(mib):
        monkeypatch.setattr(worker_processes, "SHARED_MEMORY", tmp_path)
        usage = Usage(mib * MIB, 0, mib * MIB)
        monkeypatch.setattr(worker_processes.shutil, "disk_usage", lambda _: usage)

    return set_free


@pytest.mark.parametrize(
    ("free_mib", "processes", "fitting"),
    [(16_384, 1, 4), (64, 1, 1), (64, 2, 0), (150, 1, 2), (20, 1, 0)],
)
def test_workers_are_as_many_as_there_is_room_for(free, monkeypatch, free_mib, processes, fitting):
    """A batch of LLaVA-1.5: 16 images of 336 x 336 pixels are 21 MiB."""
    free(free_mib)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    batch_bytes = 16 * MIB if fitting == 1 else 21 * MIB
    assert fit_workers(4, batch_bytes) == fitting


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LOCAL_SIZE", "2"), ("SLURM_STEP_TASKS_PER_NODE", "2(x2),1")],
    ids=["deepspeed", "srun"],
)
def test_the_processes_of_every_launcher_share_it(free, monkeypatch, variable, value):
    free(110)
    assert fit_workers(4, 21 * MIB) == 1
    monkeypatch.setenv(variable, value)
    assert fit_workers(4, 21 * MIB) == 0


def test_without_shared_memory_as_a_folder_nothing_is_known(free, monkeypatch, tmp_path):
    free(1)
    monkeypatch.setattr(worker_processes, "SHARED_MEMORY", tmp_path / "none")
    assert fit_workers(4, MIB) == 4


@pytest.mark.slow
def test_a_training_goes_on_with_fewer_workers(tiny_llava_dir, drawn_pool, tmp_path, free, caplog):
    from support.training_runs import write_run

    free(0)
    config, run = write_run(
        tmp_path,
        "run",
        model={"path": str(tiny_llava_dir)},
        file=drawn_pool,
        image_dir=drawn_pool.parent / "images",
        hf={"max_steps": 2, "dataloader_num_workers": 2, "dataloader_prefetch_factor": 4},
    )
    train(config, run)
    assert "0 MiB free, and 2 workers need" in caplog.text
    assert "going on with 0 (batches are made in this process, slower)" in caplog.text
    assert run.checkpoint.exists()


def test_workers_of_every_loader_end_where_they_are_not_heard():
    package = Path(worker_processes.__file__).parents[1]
    texts = {path.name: path.read_text() for path in package.rglob("*.py")}
    made = {name for name, text in texts.items() if re.search(r"\bDataLoader\((\n|\w)", text)}
    heard = {name for name, text in texts.items() if "end_unheard_workers(" in text}
    assert "generate.py" in made
    assert made - heard == {"arguments.py"}  # which makes one to see whether its options suit


LONG_PATH = """
import torch
from torch.utils.data import DataLoader
from prism_tune.run.worker_processes import end_unheard_workers

loader = DataLoader(torch.ones(4), batch_size=2, num_workers=1)
print(sum(len(batch) for batch in end_unheard_workers(loader)))
"""


@pytest.mark.slow
def test_workers_hand_over_where_the_path_of_tmpdir_is_too_long_for_a_socket(long_tmpdir):
    command = [sys.executable, "-c", LONG_PATH]
    done = subprocess.run(command, env=long_tmpdir, capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr


def test_what_is_held_out_is_counted_beside_what_is_trained_on(free):
    """Its workers fill batches of their own while those of the training keep theirs."""
    free(64)
    config: Any = SimpleNamespace(training=SimpleNamespace(batching="random"))
    for held_out, expected in ((None, 2), (examples(MIB, 1), 1)):
        arguments = TrainingArguments(
            dataloader_num_workers=4, per_device_train_batch_size=8, per_device_eval_batch_size=8
        )
        fit_loader(arguments, examples(MIB, 2), config, held_out=held_out)
        assert arguments.dataloader_num_workers == expected


def examples(num_bytes: int, num: int) -> Any:
    """A dataset of that many examples, each as large."""

    class Examples(list[dict[str, Any]]):
        lengths_N = np.arange(num)

    return Examples([{"pixel_values": np.zeros(num_bytes, np.uint8)}] * num)
