"""Weights & Biases, offline unless WANDB_MODE says otherwise: which run, and what it is about.

In: the config and what the stage reads. Out: variables that wandb reads, and the run's config
there; losses (also of each source), speeds and learning rate come by Trainer's own callback.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prism_tune.config.sections import Config
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir


def set_environment(config: Config, run: RunDir) -> None:
    """Name project and folder to wandb, and keep it off the network unless it was let on."""
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_DIR", str(run.training))
    os.environ["WANDB_PROJECT"] = config.tracking.project
    if config.tracking.entity is not None:
        os.environ["WANDB_ENTITY"] = config.tracking.entity


class DescribeRun(TrainerCallback):
    """Adds the experiment and the fingerprints of what it reads to the run's config in wandb."""

    def __init__(self, config: Config, inputs: Mapping[str, Any]) -> None:
        self._description = {
            "experiment": config.model_dump(mode="json"),
            "data_fingerprint": inputs["records"],
            "fingerprint": fingerprint(inputs),
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Trainer's own callback, which comes before, has opened the run."""
        if state.is_world_process_zero and "wandb" in (args.report_to or ()):
            import wandb

            assert wandb.run is not None
            wandb.run.config.update(self._description)
