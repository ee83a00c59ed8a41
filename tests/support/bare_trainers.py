"""The trainer of a training without its model: whatever is asked of the model is the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.training.arguments import training_arguments
from prism_tune.training.trainer import TuningTrainer

_UNMEASURED: Any = SimpleNamespace(read=lambda accelerator: {})


def bare_trainer(config: Config, run: RunDir, **options: Any) -> TuningTrainer:
    """On the CPU; `options` are the trainer's own, its model of one weight where not given."""
    model: Any = options.pop("model", None) or nn.Linear(1, 1, bias=False)
    run.training.mkdir(exist_ok=True)
    return TuningTrainer(
        config,
        checkpoints=SimpleNamespace(),  # type: ignore[arg-type]
        meter=_UNMEASURED,
        model=model,
        args=training_arguments(config, run, device=torch.device("cpu"), dtype=torch.float32),
        **options,
    )
