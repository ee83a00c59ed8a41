"""What is saved under ZeRO 0 to 2: the model as it is, not a copy that every process makes."""

from __future__ import annotations

import pytest
import torch
from deepspeed.checkpoint import utils
from support.training_runs import weights
from transformers import Trainer

from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_model_is_saved_without_copying_it_before(make_run, monkeypatch, tuning):
    copied = []
    clone = utils.clone_tensors_for_torch_save

    def note_copy(*arguments, **options):
        copied.append(1)
        return clone(*arguments, **options)

    monkeypatch.setattr(utils, "clone_tensors_for_torch_save", note_copy)
    # bfloat16, for there DeepSpeed's weights lie in one flat buffer.
    options = {"tuning": tuning, "deepspeed": "configs/deepspeed/zero2.json"}
    options |= {"hf": {"max_steps": 2, "save_strategy": "no", "bf16": True}}
    config, run = make_run("ours", **options)
    train(config, run)
    assert not copied
    monkeypatch.setattr(TuningTrainer, "save_model", Trainer.save_model)
    config, theirs = make_run("theirs", **options)
    train(config, theirs)
    assert copied
    found, expected = weights(run.checkpoint), weights(theirs.checkpoint)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    sizes = [
        [path.stat().st_size for path in sorted(folder.glob("*.safetensors"))]
        for folder in (run.checkpoint, theirs.checkpoint)
    ]
    assert sizes[0] == sizes[1]
