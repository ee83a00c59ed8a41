"""Watching a training: one progress line on the console, one JSON line per step in log.jsonl.

Also what Weights & Biases is told of the run, and leaving a training that has no step left.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import SaveStrategy

from prism_tune.config.secrets import redact
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.interrupts import Interrupted, asked_to_end
from prism_tune.processes import greatest
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import write_atomic
from prism_tune.run.progress import ProgressLines
from prism_tune.run.written import read_log
from prism_tune.training.checkpoints import TimedSaves

logger = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"
VALIDATION_LOSS = "eval_loss"
"""As transformers and its trackers name it."""

_SHOWN = {
    "loss": "loss",
    VALIDATION_LOSS: "held out",
    "tokens_per_second": "tokens/s",
    "images_per_second": "images/s",
}
_UNTRUE = (
    "Warning: The following arguments do not match the ones in the `trainer_state.json`",
    "The best checkpoint ",
)


class ProgressLine(ProgressCallback):
    """The bar of transformers, with the last losses and speeds in it in place of printed dicts.

    They stand in the log as well, where they are the bar of a console that is none.
    """

    _lines: ProgressLines | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show loss and speed beside the bar."""
        told = logs or {}
        shown = {label: told[key] for key, label in _SHOWN.items() if key in told}
        if not (state.is_world_process_zero and shown):
            return
        if self.training_bar is not None:
            self.training_bar.set_postfix(shown)
        if self._lines is None:
            self._lines = ProgressLines("training, step", state.max_steps)
        said = [f"{label} {value:.4g}" for label, value in shown.items()]
        self._lines.show(state.global_step, ", ".join(said))


class JsonLog(TrainerCallback):
    """Appends what Trainer logs to a file; a resumed run first drops the steps it will repeat.

    Losses of held-out records have lines of their own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the lines up to the step that training starts from."""
        if state.is_world_process_zero:
            before = [line for line in read_log(self._path) if line["step"] <= state.global_step]
            write_atomic(self._path, b"".join(orjson.dumps(line) + b"\n" for line in before))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Whatever `logging_steps` is, the last step is logged and metered, and each that is saved.

        Trainer forgets what it has summed up since the last line when it goes on from a checkpoint.
        """
        if state.global_step >= state.max_steps or _may_be_saved(args, control):
            control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """With `save_strategy: epoch` that is where a checkpoint is written."""
        if _may_be_saved(args, control):
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append a line for a step or a validation (not for the summary at the end)."""
        if state.is_world_process_zero and logs and ("loss" in logs or VALIDATION_LOSS in logs):
            with self._path.open("ab") as file:
                file.write(orjson.dumps({"step": state.global_step, **logs}) + b"\n")


def _may_be_saved(args: TrainingArguments, control: TrainerControl) -> bool:
    """At the step's end; whether it is the best is known only behind its line in the log."""
    by_loss = args.save_strategy == SaveStrategy.BEST
    return control.should_save or (by_loss and control.should_evaluate)


class DescribeRun(TrainerCallback):
    """Adds the experiment and the fingerprints of what it reads to the run's config in wandb."""

    def __init__(self, config: Config, inputs: Mapping[str, Any]) -> None:
        self._description = {
            "experiment": redact(config.model_dump(mode="json")),
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


@contextmanager
def closed_tracking(args: TrainingArguments) -> Iterator[None]:
    """End the run in wandb with the training, as failed where that fails.

    Trainer opens it and leaves it to the end of the process: a second training of the same process
    would be written into the first one's, and a forked process has no end that wandb hears of. A
    run that somebody else has opened is left to them.
    """
    if "wandb" not in (args.report_to or ()):
        yield
        return
    import wandb

    theirs, exit_code = wandb.run, 1
    try:
        yield
        exit_code = 0
    finally:
        if wandb.run is not theirs:
            wandb.finish(exit_code)


class AllStepsDone(Exception):  # noqa: N818 - no error
    """Model and optimiser are loaded as the last step left them."""


class StopAfterLastStep(TrainerCallback):
    """Leaves `Trainer.train` before its first step where there is none to do, only to save.

    Trainer would train on to the end of the batch in hand: a run killed between its last step and
    the saving of the tuned model would end up with one step more than its schedule has.

    Raises:
        AllStepsDone: there is none.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The checkpoint has been loaded by now."""
        if state.global_step >= state.max_steps:
            raise AllStepsDone


class KeepIntervals(TrainerCallback):
    """A training that goes on saves, evaluates and logs as its config says now.

    Trainer goes on with the intervals of the checkpoint, which the config may have changed since:
    they change nothing of what is learnt.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The checkpoint's state has been loaded by now."""
        state.compute_steps(args, state.max_steps)


@contextmanager
def untold_changes() -> Iterator[None]:
    """Keep off what transformers says of a checkpoint and is mended before the first step.

    It compares intervals that are shares of the steps with numbers of them (`KeepIntervals`), and
    looks for the best checkpoint where the run folder was (`BestOfSaved`).
    """
    sources = [logging.getLogger(f"transformers.{name}") for name in ("trainer", "trainer_utils")]
    for source in sources:
        source.addFilter(_holds)
    try:
        yield
    finally:
        for source in sources:
            source.removeFilter(_holds)


def _holds(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_UNTRUE)


class RequireLearning(TrainerCallback):
    """Refuses, before it, an only step that learns nothing: a warm-up begins with a rate of 0.

    Raises:
        UserError: naming what gives it a rate.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """The schedule has set the first step's rates by now."""
        if state.max_steps == 1 and not any(group["lr"] for group in optimizer.param_groups):
            raise UserError(
                "training: its only step has a learning rate of 0, for there the warm-up begins: "
                "set training.hf.warmup_steps=0, or train for more steps (more records or epochs, "
                "a smaller training.hf.per_device_train_batch_size)"
            )


class StopWhenAsked(TimedSaves):
    """Ends a training that was asked to at the next step, with a checkpoint to go on from.

    The processes agree at the step's end, where all of them are: a signal may have reached one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._signum = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After the last step the tuned model is saved, and nothing is left to go on with."""
        super().on_step_end(args, state, control)
        if state.global_step < state.max_steps:
            self._signum = greatest(asked_to_end() or 0)
            control.should_save = control.should_save or bool(self._signum)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The checkpoint is complete.

        Raises:
            Interrupted: here, before Trainer tidies up as behind a last step.
        """
        super().on_save(args, state, control)
        if not self._signum:
            return
        if state.is_world_process_zero:
            logger.warning(
                "training: asked to end (%s); checkpoint-%d of %d steps is saved, and the same "
                "command %s",
                signal.Signals(self._signum).name,
                state.global_step,
                state.max_steps,
                "starts again: it holds the model alone (training.hf.save_only_model)"
                if args.save_only_model
                else "goes on from it",
            )
        raise Interrupted(self._signum)
