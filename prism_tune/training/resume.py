"""Going on from the last step's checkpoint: there is nothing left to train, only to save.

Trainer would train on to the end of the batch in hand: a run killed between its last step and the
saving of the tuned model would end up with one step more than its schedule has.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class AllStepsDone(Exception):  # noqa: N818 - no error
    """Model and optimiser are loaded as the last step left them."""


class StopAfterLastStep(TrainerCallback):
    """Leaves `Trainer.train` before its first step where there is none to do.

    Raises:
        AllStepsDone: there is none.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The checkpoint has been loaded by now."""
        if state.global_step >= state.max_steps:
            raise AllStepsDone
