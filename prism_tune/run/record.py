"""What a run really is: the config its finished stages ran with, out of their own records.

Whatever was asked of a run folder later (a preview, a failed command, a stage that was skipped)
says nothing about what lies in it.
"""

from __future__ import annotations

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage


def recorded_config(run: RunDir) -> Config:
    """Each section as the stage ran that reads it; the rest as the last stage ran.

    Raises:
        UserError: no stage of the folder has finished.
    """
    selection = Stage(run.selection).config()
    training = Stage(run.training).config()
    evaluations = [Stage(path.parent).config() for path in run.evaluation.glob("*/stage.json")]
    evaluation = next((config for config in evaluations if config is not None), None)
    latest = evaluation or training or selection or Stage(run.audit).config()
    if latest is None:
        raise UserError(
            f"{run.root}: no stage has finished there; `prism-tune select CONFIG` begins a run"
        )
    changes = {}
    if training is not None and latest.training.tuning != "none":
        changes = {"training": training.training, "model": training.model, "data": training.data}
    if selection is not None:
        changes["selection"] = selection.selection
    return latest.model_copy(update=changes)
