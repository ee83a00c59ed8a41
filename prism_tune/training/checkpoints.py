"""Which checkpoint to resume from, and clearing those of other inputs.

A checkpoint counts once its marker is written, after everything else: a killed save never does.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from prism_tune.distributed import world_size
from prism_tune.errors import UserError
from prism_tune.run_dir import RunDir, read_json, write_json

logger = logging.getLogger(__name__)

_MARKER = "complete.json"


def mark_complete(directory: Path, fingerprint: str) -> None:
    """Declare a checkpoint complete; the last thing written into it."""
    write_json(directory / _MARKER, {"fingerprint": fingerprint, "num_processes": world_size()})


def drop_oldest(root: Path, limit: int | None) -> None:
    """Keep the newest `limit` checkpoints; None keeps all."""
    if limit is not None:
        for directory in sorted(_checkpoints(root), key=_step)[:-limit]:
            shutil.rmtree(directory)


def find_checkpoint(run: RunDir, fingerprint: str) -> Path | None:
    """The newest complete checkpoint that was trained from the same inputs.

    Raises:
        UserError: it was written by another number of processes, whose batches and optimiser
            shards differ.
    """
    for directory in sorted(_checkpoints(run.training), key=_step, reverse=True):
        marker = directory / _MARKER
        if not marker.exists():
            continue
        record = read_json(marker)
        if record["fingerprint"] != fingerprint:
            continue
        if record["num_processes"] != world_size():
            raise UserError(
                f"{directory}: written by {record['num_processes']} processes, now there are "
                f"{world_size()}; launch as many as before, or start again with --force"
            )
        return directory
    return None


def clear_checkpoints(run: RunDir, keep: Path | None) -> None:
    """Remove what earlier attempts left, but for `keep` and the older checkpoints beside it."""
    for directory in _checkpoints(run.training):
        if keep is None or _step(directory) > _step(keep):
            logger.info("training: removes %s (unfinished, or of other inputs)", directory)
            shutil.rmtree(directory)
    shutil.rmtree(run.checkpoint, ignore_errors=True)


def _checkpoints(root: Path) -> list[Path]:
    return [path for path in root.glob("checkpoint-*") if path.is_dir()]


def _step(directory: Path) -> int:
    return int(directory.name.rpartition("-")[2])
