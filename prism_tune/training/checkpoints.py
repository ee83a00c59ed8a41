"""Checkpoints of a run: completing, verifying and timing them, and which one to go on from.

In: what Trainer saved. Out: self-contained directories. A checkpoint counts once its marker is
written, after everything else: a killed save never does. The marker lists the files, so that one
that has lost some since (its optimiser, its schedule) is not gone on from either.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.interrupts import patience_seconds, tell_when_cut_off
from prism_tune.models.checkpoint import complete_checkpoint, digest_trained, verify_saved
from prism_tune.models.devices import name_dtype
from prism_tune.processes import from_main, is_main, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_json, write_json
from prism_tune.run.stage import Stage

logger = logging.getLogger(__name__)

MARKER = "complete.json"
_MARKED = {"fingerprint", "num_processes", "dtype", "only_model", "bytes"}
_NAME = re.compile(r"checkpoint-\d+$")
"""The folder of a training beside one that has finished (see `finished.py`)."""


class CheckpointWriter:
    """Makes what Trainer saves self-contained, verifies it, and declares it complete.

    Args:
        config: of the run.
        inputs: everything the weights depend on (`inputs.stage_inputs`).
        initial: `digest_trained` before training.
        dtype: that is computed in.
    """

    def __init__(
        self,
        config: Config,
        inputs: Mapping[str, Any],
        initial: Mapping[str, str],
        dtype: torch.dtype,
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._initial = initial
        self._dtype = dtype

    def complete(self, directory: Path, model: Any) -> None:
        """Add what transformers does not write; on the process that saves."""
        generation: Any = getattr(model, "generation_config", None)
        if generation is not None:  # peft does not write it
            generation.save_pretrained(directory)
        complete_checkpoint(directory, self._config, self._inputs)

    def finish(self, directory: Path, model: nn.Module, *, only_model: bool) -> None:
        """Verify a checkpoint, and mark it; the last thing written into it.

        Called on every rank. The first steps of a warm-up may leave everything as it was.

        Args:
            directory: the checkpoint.
            model: that was saved.
            only_model: without the optimiser's state, so that no training can go on from it.

        Raises:
            UserError: it does not hold what was trained.
        """
        if not self._verify(directory, model) and is_main():
            logger.warning("%s: nothing differs from the initial weights yet", directory)
        if is_main():
            marker = {
                "fingerprint": fingerprint(self._inputs),
                "num_processes": world_size(),
                "dtype": name_dtype(self._dtype),
                "only_model": only_model,
                "bytes": _measure(directory),
            }
            write_json(directory / MARKER, marker)
            tell_where_to_go_on(None if only_model else directory)

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


class TimedSaves(TrainerCallback):
    """Says once where a save has taken longer than `training.grace_seconds`."""

    def __init__(self) -> None:
        self._since = 0.0
        self._has_warned = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any
    ) -> None:
        """The step of the checkpoint that this training goes on from is known by now."""
        if state.is_world_process_zero:
            name = f"checkpoint-{state.global_step}"
            tell_where_to_go_on(Path(str(args.output_dir), name) if state.global_step else None)

    def _begin(self, *_: Any, **__: Any) -> None:
        self._since = time.monotonic()

    # Whichever comes last is followed by the save.
    on_step_end = on_epoch_end = on_log = on_evaluate = _begin

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """The checkpoint is complete."""
        seconds, grace = time.monotonic() - self._since, patience_seconds()
        if seconds <= grace or self._has_warned or not state.is_world_process_zero:
            return
        self._has_warned = True
        logger.warning(
            "training: a save took %.0f s, training.grace_seconds is %g: asked to end, the "
            "checkpoint would be cut off; set training.grace_seconds=%d (nothing is trained anew "
            "for it), and let the scheduler wait as long",
            seconds,
            grace,
            ceil(2 * seconds),
        )


def tell_where_to_go_on(checkpoint: Path | None) -> None:
    """For the last line of a training that is ended before its next checkpoint is complete."""
    begin = f"goes on from {checkpoint}" if checkpoint else "starts again, as there is none before"
    tell_when_cut_off(
        f"the checkpoint is not complete, and the same command {begin}; a larger "
        "training.grace_seconds leaves a save more time"
    )


def work_directory(run: RunDir) -> Path:
    """Where a training that has not finished keeps its checkpoints and its log."""
    return run.next_training if Stage(run.training).path.exists() else run.training


def drop_oldest(root: Path, limit: int | None, best: str | None = None) -> None:
    """Keep the newest `limit` checkpoints, and the best so far; None, 0 and less keep all."""
    if limit is not None and limit > 0:
        for directory in sorted(_checkpoints(root), key=checkpoint_step)[:-limit]:
            if best is None or directory != Path(best):
                _remove(directory)


def checkpoint_step(directory: Path) -> int:
    """The step that a checkpoint's name says it was written at."""
    return int(directory.name.rpartition("-")[2])


def complete_checkpoints(root: Path) -> list[Path]:
    """Those that were marked, newest first."""
    marked = (path for path in _checkpoints(root) if read_marker(path) is not None)
    return sorted(marked, key=checkpoint_step, reverse=True)


def read_marker(directory: Path) -> dict[str, Any] | None:
    """What the marker of a checkpoint says; None where there is none, or a damaged one."""
    path = directory / MARKER
    if not path.exists():
        return None
    try:
        record = read_json(path)
    except UserError:
        record = None
    if isinstance(record, dict) and record.keys() >= _MARKED:
        return record
    logger.warning("%s: damaged; training cannot go on from %s", path, directory.name)
    return None


def find_checkpoint(root: Path, key: str, dtype: torch.dtype) -> Path | None:
    """The newest checkpoint that was trained from the same inputs (`key`) and is whole.

    Says why it passes over a newer one.

    Raises:
        UserError: it was written by another number of processes, whose batches and optimiser
            shards differ, or computed in another dtype, by a device that `auto` is another on.
    """
    for directory in complete_checkpoints(root):
        record = read_marker(directory)
        if record is None or record["fingerprint"] != key:
            continue
        if record["num_processes"] != world_size():
            raise UserError(
                f"{directory}: written by {record['num_processes']} processes, now there are "
                f"{world_size()}; launch as many as before, or start again with --force"
            )
        if record["dtype"] != name_dtype(dtype):
            raise UserError(
                f"{directory}: computed in {record['dtype']}, and this device would go on in "
                f"{name_dtype(dtype)}; take one as before, or start again with --force"
            )
        fault = _find_fault(directory, record)
        if not fault:
            return directory
        if is_main():
            logger.warning("%s: %s; training cannot go on from it", directory, fault)
    return None


def clear_checkpoints(root: Path, keep: Path | None) -> None:
    """Remove what earlier attempts left, but for `keep` and the older checkpoints beside it."""
    for directory in _checkpoints(root):
        if keep is None or checkpoint_step(directory) > checkpoint_step(keep):
            logger.info("training: removes %s (unfinished, or not to go on from)", directory)
            _remove(directory)
    for name in ("final", "final.partial"):
        _remove(root / name)


def load_full_weights(model: nn.Module, directory: str) -> None:
    """Resume a model tuned without adapter.

    Trainer loads the file's keys as they are, non-strictly; `save_pretrained` writes them in the
    published layout, which differs, so that resuming would start from the base weights with no
    more than a warning.
    """
    assert isinstance(model, PreTrainedModel)
    saved = type(model).from_pretrained(directory, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())


def _find_fault(directory: Path, record: Mapping[str, Any]) -> str:
    """Why nothing can go on from a checkpoint; empty where it can."""
    if record["only_model"]:
        return "holds the model alone (training.hf.save_only_model)"
    measured = _measure(directory)
    for name, size in record["bytes"].items():
        if name not in measured:
            return f"{name} is missing"
        if measured[name] != size:
            return f"{name} has {measured[name]} bytes of {size}"
    return ""


def _measure(directory: Path) -> dict[str, int]:
    """Bytes of each file of a checkpoint but its marker."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    sizes = {str(path.relative_to(directory)): path.stat().st_size for path in files}
    sizes.pop(MARKER, None)
    return sizes


def _remove(directory: Path) -> None:
    """Of a link to a folder elsewhere the link alone."""
    if directory.is_symlink():
        directory.unlink()
    elif directory.exists():
        shutil.rmtree(directory)


def _checkpoints(root: Path) -> list[Path]:
    """Those that a training has named; `checkpoint-best` and the like are the user's own."""
    return [path for path in root.glob("checkpoint-*") if path.is_dir() and _NAME.match(path.name)]
