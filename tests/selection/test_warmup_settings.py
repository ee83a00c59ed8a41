"""What a warm-up is trained with, where, and what its errors say; nothing is trained."""

from __future__ import annotations

import json

import pytest
import torch

from prism_tune.data.records import open_pool
from prism_tune.errors import UserError
from prism_tune.run.folder import write_json
from prism_tune.run.stage import Stage
from prism_tune.selection.marks import Marks
from prism_tune.selection.reference import warmup as planning
from prism_tune.selection.reference.warmup import plan_warmup, share_step
from prism_tune.training.checkpoints import MARKER, find_checkpoint
from prism_tune.training.finished import must_train


@pytest.mark.parametrize(
    ("batch_size", "num_devices", "expected"),
    [
        (128, 1, (16, 8)),
        (128, 8, (16, 1)),
        (24, 1, (12, 2)),
        (24, 2, (12, 1)),
        (100, 1, (10, 10)),
        (6, 4, (2, 1)),  # 8: no closer number goes into four
        (128, 3, (1, 43)),  # 129
        (1, 8, (1, 1)),
    ],
)
def test_a_step_has_the_records_that_were_asked_or_the_nearest_number(
    batch_size, num_devices, expected
):
    per_device, accumulation = share_step(batch_size, num_devices)
    assert (per_device, accumulation) == expected
    missed = abs(per_device * accumulation * num_devices - batch_size)
    assert missed <= max(num_devices / 2, num_devices - batch_size)
    assert not missed or batch_size % num_devices


def test_a_given_number_at_a_time_is_taken():
    assert share_step(128, 1, per_device=4) == (4, 32)
    assert share_step(6, 1, per_device=4) == (4, 2)


@pytest.fixture
def plan(workplace, monkeypatch):
    """`plan(num_devices, **warmup)` -> the warm-up of a config over the drawn pool."""

    def make(num_devices=1, **warmup):
        monkeypatch.setattr(planning, "world_size", lambda: num_devices)
        asked = json.dumps({"warmup": {"share": 0.5, **warmup}})
        config = workplace.config(selection__reference=asked)
        return plan_warmup(config, open_pool(config.data), Marks())

    return make


def test_adapters_of_different_batches_lie_in_different_folders(plan):
    one, two, three = (plan(number, batch_size=8) for number in (1, 2, 3))
    assert (one.batch_size, two.batch_size, three.batch_size) == (8, 8, 9)
    assert one.run.root == two.run.root != three.run.root
    assert one.key == three.key  # the selection has not changed
    assert plan(1, batch_size=9).run.root not in (one.run.root, three.run.root)
    assert three.describe()["batch_size"] == 9
    odd = plan(1, batch_size=8, hf={"per_device_train_batch_size": "many"})
    assert odd.batch_size == 8  # the training will say what is wrong with it


def test_errors_say_what_trains_a_warm_up_anew(plan):
    warmup = plan()
    inputs = {"records": "these"}
    stage = Stage(warmup.run.training)
    warmup.run.training.mkdir(parents=True)
    final = warmup.run.training / "final.bin"
    final.write_text("whole")
    stage.finish(inputs, config=warmup.config, files=[final])
    final.write_text("cut")
    expected = f"restore them, or delete {warmup.run.root} to train it anew$"
    with (
        pytest.raises(UserError, match=expected),
        planning._named_as_asked(warmup.run.root),
    ):
        must_train(warmup.run, inputs, force=False)
    with (
        pytest.raises(UserError, match=f"(?s)of other inputs.*delete {warmup.run.root} to train"),
        planning._named_as_asked(warmup.run.root),
    ):
        must_train(warmup.run, {"records": "others"}, force=False)


def test_another_number_of_processes_says_what_trains_a_warm_up_anew(plan):
    root = plan().run.root
    marked = {"fingerprint": "k", "num_processes": 2, "dtype": "float32"}
    marked |= {"only_model": False, "bytes": {}}
    write_json(root / "checkpoint-1" / MARKER, marked)
    expected = f"launch as many as before, or delete {root} to train it anew$"
    with pytest.raises(UserError, match=expected), planning._named_as_asked(root):
        find_checkpoint(root, "k", torch.float32)


def test_its_save_has_the_time_that_a_training_has(workplace):
    reference = json.dumps({"warmup": {"share": 0.5}})
    options = {"selection__reference": reference, "training__grace_seconds": 600}
    config = workplace.config(**options)
    warmup = plan_warmup(config, open_pool(config.data), Marks())
    assert warmup.config.training.grace_seconds == 600
    config = workplace.config(selection__reference=reference)
    assert plan_warmup(config, open_pool(config.data), Marks()).key == warmup.key
