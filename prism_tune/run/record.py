"""What a run really is: the config its finished stages ran with, out of their own records.

Whatever was asked of a run folder later (a preview, a failed command, a stage that was skipped)
says nothing about what lies in it.
"""

from __future__ import annotations

from typing import Any

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage


def recorded_config(run: RunDir) -> Config:
    """Each section as the stage ran that reads it.

    Model, seed and tuning are the training's; where every finished evaluation is of the untuned
    model they are the evaluation's, whatever was trained beside it. Selection and pool are the
    selection's, unless the model was tuned on the whole pool.

    Raises:
        UserError: no stage of the folder has finished, or a record that cannot be read.
    """
    selection, training = Stage(run.selection).config(), Stage(run.training).config()
    evaluations = _evaluation_configs(run)
    untuned = bool(evaluations) and all(e.training.tuning == "none" for e in evaluations)
    made = None if untuned else training
    latest = made or next(iter(evaluations), None) or selection or Stage(run.audit).config()
    if latest is None:
        raise UserError(
            f"{run.root}: no stage has finished there, so it is not a run folder; "
            "`prism-tune train CONFIG` makes one"
        )
    changes: dict[str, Any] = {}
    if evaluations:
        changes["evaluation"] = evaluations[0].evaluation
    if selection is not None:
        changes["selection"] = selection.selection
        if made is None or made.training.records == "subset":
            changes["data"] = selection.data
    return latest.model_copy(update=changes)


def _evaluation_configs(run: RunDir) -> list[Config]:
    """Of the finished benchmarks, by name."""
    folders = sorted(path.parent for path in run.evaluation.glob("*/stage.json"))
    return [config for folder in folders if (config := Stage(folder).config()) is not None]
