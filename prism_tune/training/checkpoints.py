"""Checkpoints of a run: completing and verifying them, and which one to go on from.

In: what Trainer saved. Out: self-contained directories; those of other inputs are removed. A
checkpoint counts once its marker is written, after everything else: a killed save never does.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.models.checkpoint import complete_checkpoint, digest_trained, verify_saved
from prism_tune.processes import from_main, is_main, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_json, write_json

logger = logging.getLogger(__name__)

_MARKER = "complete.json"


class CheckpointWriter:
    """Makes what Trainer saves self-contained, verifies it, and declares it complete.

    Args:
        config: of the run.
        inputs: everything the weights depend on (`inputs.stage_inputs`).
        initial: `digest_trained` before training.
    """

    def __init__(
        self, config: Config, inputs: Mapping[str, Any], initial: Mapping[str, str]
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._initial = initial

    def complete(self, directory: Path) -> None:
        """Add what transformers does not write; on the process that saves."""
        complete_checkpoint(directory, self._config, self._inputs)

    def finish(self, directory: Path, model: nn.Module) -> None:
        """Verify a checkpoint to go on from, and mark it; the last thing written into it.

        Called on every rank. The first steps of a warm-up may leave everything as it was.

        Raises:
            UserError: it does not hold what was trained.
        """
        if not self._verify(directory, model) and is_main():
            logger.warning("%s: nothing differs from the initial weights yet", directory)
        if is_main():
            marker = {"fingerprint": fingerprint(self._inputs), "num_processes": world_size()}
            write_json(directory / _MARKER, marker)

    def verify_final(self, directory: Path, model: nn.Module) -> None:
        """Verify the tuned model, and that training has changed it; called on every rank.

        Raises:
            UserError: it does not hold what was trained, or nothing was learnt.
        """
        if not self._verify(directory, model):
            raise UserError(
                f"{directory}: no trained parameter differs from its initial value; "
                "check the learning rate and the number of steps"
            )

    def _verify(self, directory: Path, model: nn.Module) -> bool:
        """Whether anything differs from the initial weights; all ranks agree, also on an error."""
        trained = digest_trained(model)

        def judge() -> tuple[str, bool]:
            try:
                verify_saved(directory, trained)
            except UserError as error:
                return str(error), False
            return "", trained != self._initial

        problem, differs = from_main(judge)
        if problem:
            raise UserError(problem)
        return differs


def drop_oldest(root: Path, limit: int | None) -> None:
    """Keep the newest `limit` checkpoints; None keeps all."""
    if limit is not None:
        for directory in sorted(_checkpoints(root), key=_step)[:-limit]:
            shutil.rmtree(directory)


def find_checkpoint(run: RunDir, key: str) -> Path | None:
    """The newest complete checkpoint that was trained from the same inputs (`key`).

    Raises:
        UserError: it was written by another number of processes, whose batches and optimiser
            shards differ.
    """
    for directory in sorted(_checkpoints(run.training), key=_step, reverse=True):
        marker = directory / _MARKER
        if not marker.exists():
            continue
        record = read_json(marker)
        if record["fingerprint"] != key:
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
