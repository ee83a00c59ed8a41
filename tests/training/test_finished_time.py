"""A training that has finished is timed as finished, wherever a signal or a kill has come."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from prism_tune import interrupts
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.stage import Stage
from prism_tune.run.timings import StageTimer, read_timings, sum_attempts
from prism_tune.training.checkpoints import CheckpointWriter
from prism_tune.training.finished import swap_in
from prism_tune.training.meter import stage_timer
from prism_tune.training.train import train

OLD, NEW = {"records": "old"}, {"records": "new"}


def begin(run, inputs):
    """An attempt that a kill leaves as it is: its timer has no end."""
    attempt = StageTimer(run, "training", fingerprint=fingerprint(inputs), device="cpu")
    attempt.__enter__()
    attempt.tick(tokens=len(inputs["records"]))
    return attempt


def told(run):
    return [(e["stage"], e["fingerprint"], e["finished"]) for e in read_timings(run)]


def test_a_kill_between_the_record_and_the_end_of_the_timer_is_mended(make_run):
    config, run = make_run()
    begin(run, OLD)
    Stage(run.training).finish(OLD, config=config)
    assert told(run) == [("training", fingerprint(OLD), False)]
    swap_in(run)
    assert told(run) == [("training", fingerprint(OLD), True)]

    begin(run, NEW)
    Stage(run.next_training).finish(NEW, config=config)
    swap_in(run)
    assert told(run) == [("training", fingerprint(NEW), True)]
    assert not run.next_training.exists()


def test_a_training_under_way_is_not_taken_as_the_finished_one(make_run):
    config, run = make_run()
    with StageTimer(run, "training", fingerprint=fingerprint(OLD), device="cpu"):
        Stage(run.training).finish(OLD, config=config)
    begin(run, NEW)
    before = read_timings(run)
    swap_in(run)
    assert read_timings(run) == before
    run.timings.write_text("[")
    swap_in(run)  # what it says of a finished training is of no use there


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_model_made_anew_took_what_it_takes_this_time(make_run, goes_on):
    """Its files were deleted: of the training that had made it nothing is used."""
    _, run = make_run()
    key, device = fingerprint(OLD), torch.device("cpu")
    with StageTimer(run, "training", fingerprint=key, device="cpu") as first:
        first.tick(tokens=3)
    timer = stage_timer(run, key, device, restart=False, goes_on=goes_on)
    assert timer is not None
    with timer:
        timer.tick(tokens=5)
    assert told(run) == [("training", key, True)] * (2 if goes_on else 1)
    assert sum_attempts(read_timings(run), "tokens") == (8 if goes_on else 5)


@pytest.mark.slow
def test_a_signal_behind_the_last_step_leaves_a_finished_training(make_run, monkeypatch):
    config, run = make_run(hf={"max_steps": 1, "warmup_steps": 0, "save_strategy": "no"})
    verify = CheckpointWriter.verify_final

    def verify_and_ask(self, directory, model):
        verify(self, directory, model)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CheckpointWriter, "verify_final", verify_and_ask)
    monkeypatch.setattr(interrupts._requests, "signum", None)
    monkeypatch.setattr(interrupts._requests, "grace_seconds", 60)
    asked = signal.signal(signal.SIGTERM, lambda *_: setattr(interrupts._requests, "signum", 15))
    try:
        with pytest.raises(interrupts.Interrupted):
            train(config, run)
    finally:
        signal.signal(signal.SIGTERM, asked)
    assert Stage(run.training).record() is not None
    assert [e["finished"] for e in read_timings(run)] == [True]
