"""Deciding whether a stage has to run: finished, changed, or new."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prism_tune.run_dir import Stage

logger = logging.getLogger(__name__)


def must_run(name: str, stage: Stage, inputs: Mapping[str, Any], *, force: bool) -> bool:
    """Say what will happen and return whether the stage has to run.

    Args:
        name: the stage, as the user knows it.
        stage: its state on disk.
        inputs: everything the stage reads, by the name shown when it changed.
        force: rerun even when finished.
    """
    changed = stage.changed_inputs(inputs)
    if changed is None:
        return True
    if not changed and not force:
        logger.info("%s: already finished with the same inputs, skipped", name)
        return False
    reason = f"changed: {', '.join(changed)}" if changed else "--force"
    logger.info("%s: runs again (%s)", name, reason)
    return True
