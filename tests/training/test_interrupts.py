"""SIGTERM, SIGINT, SIGHUP in a training: a checkpoint, a line, the exit code; the same model."""

from __future__ import annotations

import pytest
from support.ranks import Ranks, be_left_when_asked, hang_when_asked
from support.training_runs import losses, weights, write_mixed_pool, write_run

CASES = [("SIGHUP", 1, None), ("SIGTERM", 2, None), ("SIGINT", 2, "zero3")]
NUM_STEPS = 6
CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_training_that_is_asked_to_end_saves_and_goes_on(
    case, tiny_llava_dir, drawn_pool, tmp_path
):
    name, num_processes, zero = case
    pool = write_mixed_pool(tmp_path / "mixed.json", drawn_pool, num_images=4)

    def start(run_name, kill=None):
        _, run = write_run(
            tmp_path,
            run_name,
            model={"path": str(tiny_llava_dir)},
            file=pool,
            image_dir=drawn_pool.parent / "images",
            deepspeed=zero and f"configs/deepspeed/{zero}.json",
            hf={"per_device_train_batch_size": 1, "max_steps": NUM_STEPS, "save_steps": 100},
        )
        arguments = ["train", str(run.root / "experiment.yaml")]
        output = run.root / f"{bool(kill)}.txt"
        return run, Ranks(arguments, output, num_processes=num_processes, kill=kill)

    parted, ranks = start("parted", (name, 3))
    assert ranks.leave() == [CODES[name]] * num_processes
    said = " ".join(ranks.printed().split())
    assert f"asked to end ({name}); checkpoint-4 of {NUM_STEPS} steps is saved" in said
    assert "the same command goes on from it" in said
    assert "Traceback" not in said
    assert not (parted.training / "stage.json").exists()
    _, again = start("parted")
    again.succeed()
    assert "goes on from" in again.printed()
    assert len(losses(parted)) == NUM_STEPS
    if num_processes > 1:  # what those of several are after a stop, test_resume.py shows
        return
    whole, uninterrupted = start("whole")
    uninterrupted.succeed()
    assert losses(parted) == losses(whole)
    expected, got = weights(whole.checkpoint), weights(parted.checkpoint)
    assert expected.keys() == got.keys()
    assert all(expected[name].equal(got[name]) for name in expected)


@pytest.mark.slow
def test_the_grace_ends_also_what_hangs(tmp_path):
    """A collective whose peer never comes holds the main thread; the process ends all the same."""
    ranks = Ranks([], tmp_path / "printed.txt", num_processes=2, program=hang_when_asked)
    assert ranks.leave() == [143, 143]
    assert "SIGTERM: the grace of 1 seconds is over" in ranks.printed()


@pytest.mark.slow
def test_a_collective_that_fails_for_a_rank_that_has_left_is_no_defect(tmp_path):
    """Both are asked to end; the one whose grace is over first closes the other's connection."""
    ranks = Ranks([], tmp_path / "printed.txt", num_processes=2, program=be_left_when_asked)
    assert ranks.leave() == [143, 143]
    assert "SIGTERM: another rank may have left before: " in ranks.printed()
    assert "Traceback" not in ranks.printed()
