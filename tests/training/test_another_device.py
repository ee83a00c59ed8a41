"""A training that is begun on one device and gone on with on another."""

from __future__ import annotations

import pytest

from prism_tune.errors import UserError
from prism_tune.models import devices
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow


def end_early(trainer, directory):
    """Once all steps are done, before the tuned model is written."""
    raise KeyboardInterrupt


def test_a_checkpoint_is_not_gone_on_from_in_another_dtype(make_run, monkeypatch):
    """`auto` is bfloat16 on one and float32 on the other."""

    config, run = make_run(model={"dtype": "auto"}, hf={"max_steps": 2, "save_steps": 1})
    monkeypatch.setattr(devices, "bf16_instructions", lambda: ("amx_bf16",))
    monkeypatch.setattr(TuningTrainer, "save_verified", end_early)
    with pytest.raises(KeyboardInterrupt):
        train(config, run)
    monkeypatch.setattr(devices, "bf16_instructions", tuple)
    with pytest.raises(UserError, match="checkpoint-2: computed in bfloat16, and this device"):
        train(config, run)
