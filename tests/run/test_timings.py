"""What stages took: summed over resumed attempts, without what a changed run no longer is."""

from __future__ import annotations

import pytest

from prism_tune.errors import UserError
from prism_tune.run import timings
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.timings import (
    StageTimer,
    latest_attempts,
    read_timings,
    sum_attempts,
)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timings, "time", clock)
    return clock


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "trial")


def timer(run, stage="training", fingerprint="f1", **options) -> StageTimer:
    return StageTimer(run, stage, fingerprint=fingerprint, device="cpu", **options)


def stage_total(run, stage, quantity="device_seconds"):
    return sum_attempts([e for e in read_timings(run) if e["stage"] == stage], quantity)


def test_an_attempt_is_metered(run, clock):
    with timer(run, num_devices=4) as attempt:
        clock.seconds += 2.5
        attempt.tick(images=8, tokens=100)
        clock.seconds += 0.5
        attempt.tick(images=4)
    [entry] = read_timings(run)
    assert entry["stage"] == "training"
    assert (entry["wall_seconds"], entry["device_seconds"]) == (3.0, 12.0)
    assert entry["counts"] == {"images": 12, "tokens": 100}
    assert (entry["device"], entry["num_devices"], entry["finished"]) == ("cpu", 4, True)
    assert entry["start"] <= entry["end"]


def test_a_killed_attempt_counts_up_to_its_last_tick(run, clock):
    attempt = timer(run)
    attempt.__enter__()
    clock.seconds += 5
    attempt.tick()
    clock.seconds += 3  # and then it was killed: no __exit__
    with timer(run):
        clock.seconds += 10
    assert [entry["finished"] for entry in read_timings(run)] == [False, True]
    assert stage_total(run, "training") == 15.0
    assert stage_total(run, "training", "wall_seconds") == 15.0


def test_an_attempt_that_raises_is_not_finished(run, clock):
    def fail():
        with timer(run):
            clock.seconds += 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    [entry] = read_timings(run)
    assert (entry["finished"], entry["wall_seconds"]) == (False, 1.0)


def test_attempts_on_other_inputs_are_dropped_and_other_stages_kept(run, clock):
    for stage, fingerprint, seconds in [
        ("selection", "s1", 1),
        ("training", "f1", 10),
        ("evaluation/pope", "e1", 100),
        ("training", "f2", 1000),
    ]:
        with timer(run, stage, fingerprint):
            clock.seconds += seconds
    assert stage_total(run, "training") == 1000.0
    assert stage_total(run, "selection") == 1.0
    assert stage_total(run, "evaluation/pope") == 100.0


def test_a_finished_attempt_counts_until_another_one_has_finished_in_its_place(run, clock):
    """A killed evaluation of another checkpoint leaves the finished one's results, and its time."""
    with timer(run, fingerprint="f1"):
        clock.seconds += 10
    timer(run, fingerprint="f2").__enter__()  # killed
    clock.seconds += 3
    assert stage_total(run, "training") == 10.0
    with timer(run, fingerprint="f2") as attempt:
        clock.seconds += 5
        attempt.tick()
        assert stage_total(run, "training") == 10.0
        assert sum_attempts(latest_attempts(run, "training"), "device_seconds") == 5.0
    assert stage_total(run, "training") == 5.0
    assert {entry["stage"] for entry in read_timings(run)} == {"training"}


def test_a_killed_restart_that_is_gone_on_with_takes_the_finished_ones_place(run, clock):
    """On the same inputs, as `train --force` and then the same command without it."""
    with timer(run) as finished:
        clock.seconds += 10
        finished.tick(tokens=100)
    forced = timer(run, restart=True).__enter__()
    clock.seconds += 5
    forced.tick(tokens=70)  # killed
    with timer(run) as resumed:
        clock.seconds += 3
        resumed.tick(tokens=30)
        assert stage_total(run, "training") == 10.0
        assert sum_attempts(latest_attempts(run, "training"), "device_seconds") == 8.0
    assert stage_total(run, "training") == 8.0
    assert stage_total(run, "training", "tokens") == 100
    assert {entry["stage"] for entry in read_timings(run)} == {"training"}


def test_what_was_begun_and_given_up_is_forgotten(run, clock):
    with timer(run, fingerprint="f1"):
        clock.seconds += 10
    timer(run, fingerprint="f2").__enter__()
    with timer(run, fingerprint="f1"):
        clock.seconds += 1
    assert stage_total(run, "training") == 11.0
    assert {entry["stage"] for entry in read_timings(run)} == {"training"}


def test_a_stage_that_never_ran_has_no_total(run):
    assert read_timings(run) == []
    assert stage_total(run, "training") is None


def test_a_restart_forgets_earlier_attempts_of_its_stage_only(run, clock):
    for stage in ("selection", "training", "training"):
        with timer(run, stage):
            clock.seconds += 2
    with timer(run, restart=True):
        clock.seconds += 3
    assert stage_total(run, "training") == 3.0
    assert stage_total(run, "selection") == 2.0


def test_counts_are_summed_over_attempts_and_an_unknown_quantity_is_none(run, clock):
    with timer(run) as first:
        first.tick(flops=3e12, images=2)
    with timer(run):
        pass  # killed before it counted anything, for all the sum knows
    with timer(run) as last:
        last.tick(flops=1e12)
    assert stage_total(run, "training", "flops") == 4e12
    assert stage_total(run, "training", "images") == 2
    assert stage_total(run, "training", "tokens") is None
    assert sum_attempts([], "device_seconds") is None


def test_seconds_left_out_are_those_of_all_devices(run, clock):
    with timer(run, "selection", num_devices=2) as attempt:
        clock.seconds += 10
        attempt.leave_out(8)  # four seconds of two devices
    (entry,) = read_timings(run)
    assert (entry["wall_seconds"], entry["device_seconds"]) == (6.0, 12.0)


def test_evidence_is_charged_beside_the_attempt_and_anew_each_time(run, clock):
    read = {"evidence": "features", "device": "H100", "num_devices": 4, "counts": {"images": 9}}
    for seconds in (40.0, 60.0):
        with timer(run, "selection") as attempt:
            clock.seconds += 1
            attempt.charge([{**read, "wall_seconds": seconds / 4, "device_seconds": seconds}])
    # Two attempts on the same inputs, and the evidence as the last one read it.
    assert [entry["evidence"] for entry in read_timings(run)] == [None, "features", None]
    assert stage_total(run, "selection") == 62.0
    assert stage_total(run, "selection", "images") == 9
    with timer(run, "selection", "f2"):
        clock.seconds += 5
    assert stage_total(run, "selection") == 5.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"wall_seconds": "x"}, r"`wall_seconds` = 'x'"),
        ({"device_seconds": [1]}, r"`device_seconds` = \[1\]"),
        ({"num_devices": None}, r"`num_devices` = None"),
        ({"counts": None}, r"`counts` = None"),
        ({"counts": {"flops": "many"}}, r"`flops` = 'many'"),
        ({"stage": -1}, r"`stage` = -1"),
    ],
)
def test_a_value_of_another_kind_is_named(run, changes, says):
    entry = {"stage": "train", "fingerprint": "f", "finished": True, "counts": {}}
    write_json(run.timings, [{**entry, **changes}])
    with pytest.raises(UserError, match=rf"timings\.json: not as it was written: {says}; delete"):
        read_timings(run)
