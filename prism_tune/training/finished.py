"""The finished training of a run, and the one that may take its place.

A first training works in `training/`. Where one has finished there, a new one works beside it, in
`training.next/`, and changes places with it only once it has finished as well: until then nothing
of the old one is touched (`run/replace.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from prism_tune.errors import UserError
from prism_tune.models.adapters import read_provenance
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir
from prism_tune.run.replace import replace_folder
from prism_tune.run.stage import Stage
from prism_tune.run.timings import close_finished
from prism_tune.training.checkpoints import complete_checkpoints, read_marker, work_directory
from prism_tune.training.inputs import describe_changes

logger = logging.getLogger(__name__)

_OURS = (
    "stage.json",
    "config.yaml",
    "final",
    "final.partial",
    "log.jsonl",
    "skipped.json",
    *("checkpoint-" + "[0-9]" * digits for digits in range(1, 12)),
)


def must_train(run: RunDir, inputs: Mapping[str, Any], *, force: bool) -> bool:
    """Whether there is anything to train; says so. Changes nothing.

    Raises:
        UserError: a training of other inputs, finished or with checkpoints to go on from, would be
            replaced, and nobody said that it may be.
    """
    if force:
        logger.info("training: runs anew (--force); what has finished stays until it is replaced")
        return True
    directory, stage = work_directory(run), Stage(run.training)
    begun = complete_checkpoints(directory)
    marked = read_marker(begun[0]) if begun else None
    if marked is not None and marked["fingerprint"] == fingerprint(inputs):
        return True
    changed = stage.changed_inputs(inputs)
    damaged = stage.damaged_files()
    if changed == [] and damaged:
        raise UserError(
            f"{run.training}: finished with these inputs, but not as it left them: "
            f"{', '.join(damaged)}; restore them, or train anew with --force"
        )
    if changed == []:
        logger.info("training: already finished with the same inputs, skipped")
        return False
    if changed is not None:
        before, state = stage.require("train")["inputs"], "a finished training"
    elif begun:
        before = read_provenance(begun[0]).get("inputs", {})
        state = f"an unfinished training ({begun[0].name})"
    else:
        return True
    raise UserError(
        f"{directory if changed is None else run.training}: holds {state} of other inputs, which "
        f"this one would replace:\n{describe_changes(before, inputs)}\n"
        "Another `name` trains beside it; --force replaces it (a finished model once the new one "
        "has finished)"
    )


def swap_in(run: RunDir) -> None:
    """Let a training that has finished beside the one before take its place; on one process.

    What others have put into `training/` (Weights & Biases, a user's notes) stays there. Its time
    is that of a training that has finished, also where a kill came just before that was written.
    """
    with suppress(UserError):  # of a damaged file, which those that need it refuse
        beside = Stage(run.next_training).record()
        record = beside or Stage(run.training).record() or {}
        if "fingerprint" in record:
            close_finished(run, "training", record["fingerprint"], beside=beside is not None)
    replace_folder(run.next_training, run.training, own=_OURS)
