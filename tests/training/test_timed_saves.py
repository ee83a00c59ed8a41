"""What a training says of saves that take too long, and of one that was cut off."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from prism_tune import interrupts
from prism_tune.training import checkpoints
from prism_tune.training.callbacks import StopWhenAsked
from prism_tune.training.checkpoints import CheckpointWriter

PATIENT, CUT = 100, 0  # training.grace_seconds
GOES_ON = (
    "SIGTERM: the grace of 0 seconds is over; the checkpoint is not complete, and the same command "
    "goes on from {}; a larger training.grace_seconds leaves a save more time\n"
)


class Training:
    """Its callback, and a clock that moves where the test says."""

    def __init__(self, folder, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.callback = StopWhenAsked()
        arguments = TrainingArguments(output_dir=str(folder), use_cpu=True)
        self.state = TrainerState(max_steps=1000)
        self._given = (arguments, self.state, TrainerControl())

    def tell(self, event, *, after=0.0):
        self.now += after
        getattr(self.callback, event)(*self._given)

    def save(self, seconds, step=100):
        self.state.global_step = step
        self.tell("on_step_end", after=7)
        self.tell("on_log")
        self.tell("on_evaluate", after=500)
        self.tell("on_save", after=seconds)


@pytest.fixture
def training(tmp_path, monkeypatch):
    return Training(tmp_path, monkeypatch)


def test_a_save_that_takes_longer_than_the_grace_is_said_once(training, caplog):
    with interrupts.postponed(PATIENT):
        training.save(99.5)
        assert caplog.messages == []
        for seconds in (120.4, 130):
            training.save(seconds)
    assert caplog.messages == [
        "training: a save took 120 s, training.grace_seconds is 100: asked to end, the checkpoint "
        "would be cut off; set training.grace_seconds=241 (nothing is trained anew for it), and "
        "let the scheduler wait as long"
    ]


def test_the_main_process_alone_says_so(training, caplog):
    training.state.is_world_process_zero = False
    with interrupts.postponed(PATIENT):
        training.save(101)
    assert caplog.messages == []


@pytest.fixture
def cut_off(monkeypatch, capsys):
    """What is printed where the grace is over now, of a process that goes on for the test."""
    codes = []
    monkeypatch.setattr(interrupts, "end_at_once", codes.append)

    def cut_off():
        reading, writing = os.pipe()
        os.write(writing, bytes([signal.SIGTERM]))
        interrupts._end_after_grace(reading)
        os.close(reading)
        os.close(writing)
        assert codes.pop() == 143
        return capsys.readouterr().err

    return cut_off


def test_a_save_that_is_cut_off_says_which_checkpoint_there_is(training, cut_off, tmp_path):
    training.state.global_step = 200
    with interrupts.postponed(CUT):
        training.tell("on_train_begin")
        assert cut_off() == GOES_ON.format(tmp_path / "checkpoint-200")
    assert cut_off().endswith("ends here, what was complete before is kept\n")


def test_a_first_save_that_is_cut_off_says_that_there_is_none(training, cut_off):
    with interrupts.postponed(CUT):
        training.tell("on_train_begin")
        assert "and the same command starts again, as there is none before; " in cut_off()


@pytest.mark.parametrize("only_model", [False, True])
def test_from_the_marker_on_it_is_the_new_checkpoint(
    training, cut_off, tmp_path, monkeypatch, only_model
):
    """Nothing can go on from the model alone."""
    directory = tmp_path / "checkpoint-300"
    directory.mkdir()
    writer = CheckpointWriter(None, {}, {}, torch.float32)
    said = []

    def verify(*_):
        said.append(cut_off())
        return True

    monkeypatch.setattr(writer, "_verify", verify)
    training.state.global_step = 200
    with interrupts.postponed(CUT):
        training.tell("on_train_begin")
        writer.finish(directory, nn.Linear(1, 1), only_model=only_model)
        said.append(cut_off())
    assert said[0] == GOES_ON.format(tmp_path / "checkpoint-200")
    assert (said[1] == GOES_ON.format(directory)) is not only_model
    assert ("starts again" in said[1]) is only_model
