"""A warm-up: the LoRA that evidence is read with, tuned on a few records of the pool first.

A config and a pool go in; a run folder of its own comes out, below `<output_dir>/references/`, with
the records drawn as its subset and the adapter as its checkpoint. The training stage itself trains
there, so a killed one goes on from its last checkpoint; selection does not know that stage, and is
handed it (`Tune`). The folder goes by a hash of all that the adapter depends on: every run and
every selector that wants the same finds it.
"""

from __future__ import annotations

import gc
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prism_tune.config.depends import fields_of
from prism_tune.config.sections import (
    Config,
    EvaluationConfig,
    SelectionConfig,
    TrainingConfig,
    WarmupConfig,
)
from prism_tune.data.records import Pool, write_subset
from prism_tune.data.screening import fingerprint_images
from prism_tune.errors import UserError
from prism_tune.processes import from_main, is_main, main_first, world_size
from prism_tune.run.fingerprints import fingerprint, fingerprint_model
from prism_tune.run.folder import RunDir, locked
from prism_tune.run.ranks import outside_group
from prism_tune.run.stage import Stage
from prism_tune.run.timings import latest_attempts, sum_attempts
from prism_tune.selection.marks import Marks
from prism_tune.selection.meter import COUNTED, WARMUP
from prism_tune.selection.reference.draw import draw_records
from prism_tune.selection.reference.read import adapter_of, read_config

logger = logging.getLogger(__name__)

Tune = Callable[[Config, RunDir], None]
"""The training stage."""

_VERSION = 2
_PER_DEVICE = 16
_AT_A_TIME, _HOW_OFTEN = "per_device_train_batch_size", "gradient_accumulation_steps"
_NOT_OF_A_WARMUP = (
    r"(train anew|start again) with --force",
    r"Another `name` trains beside it;.*",
)
"""What the training stage says of how to train anew."""
_PROJECTOR_RATE = 2e-5  # LLaVA-1.5's, beside LoRA


@dataclass(frozen=True)
class Warmup:
    """What is trained, where, and on which records (their indices, in the pool's order).

    A step has `batch_size` of them, which is what was asked where the devices can share that.
    """

    config: Config
    run: RunDir
    key: str
    records: tuple[int, ...]
    batch_size: int
    batch_size_asked: int

    @property
    def adapter(self) -> Path:
        """The LoRA, once it has been trained."""
        return self.run.checkpoint

    @property
    def is_trained(self) -> bool:
        """Whether it has, and is as it was left."""
        stage = Stage(self.run.training)
        return stage.path.exists() and not stage.damaged_files()

    def train(self, pool: Pool, tune: Tune | None) -> None:
        """Train it where nobody has; one run at a time does, others wait and find it.

        Every process calls it.

        Raises:
            UserError: as the training stage; it is due, and no training stage was given.
        """
        say = partial(logger.info, "%s: another run trains it; waiting", self.run.root)
        with locked(self.run.root / "lock", say) if is_main() else nullcontext():
            if from_main(lambda: self.is_trained):
                return
            if tune is None:
                raise UserError(
                    "selection.reference.warmup: has to be trained first; `prism-tune select` "
                    "does that, and so does prism_tune.select"
                )
            main_first(lambda: self._write_records(pool))
            self._tell()
            with outside_group(), _named_as_asked(self.run.root):
                tune(self.config, self.run)
            gc.collect()  # the tuned model, before the one that evidence is read from

    def cost(self) -> list[dict[str, Any]]:
        """Entries of a selection's timings.json: one for each attempt at training it."""
        return [
            {
                "evidence": WARMUP,
                **{name: entry[name] for name in ("device", "num_devices")},
                **{name: entry[name] for name in ("wall_seconds", "device_seconds")},
                "counts": {name: entry["counts"].get(name, 0) for name in COUNTED},
            }
            for entry in latest_attempts(self.run, "training")
        ]

    def describe(self) -> dict[str, Any]:
        """For the selection's manifest."""
        attempts = latest_attempts(self.run, "training")
        return {
            "folder": str(self.run.root),
            "num_records": len(self.records),
            "batch_size": self.batch_size,
            "device_seconds": sum_attempts(attempts, "device_seconds"),
            "flops_estimate": sum_attempts(attempts, "flops"),
        }

    def _tell(self) -> None:
        logger.info("warm-up: %d records, in %s", len(self.records), self.run.root)
        if self.batch_size != self.batch_size_asked:
            logger.warning(
                "warm-up: a step has %d records, not %d: it is shared by %d processes as "
                "selection.reference.warmup.hf says, or as evenly as it can be",
                self.batch_size,
                self.batch_size_asked,
                world_size(),
            )

    def _write_records(self, pool: Pool) -> None:
        """The records drawn, as the subset of a finished selection."""
        stage, path = Stage(self.run.selection), self.run.subset_in(pool.format)
        inputs = {"pool": pool.fingerprint, "key": self.key}
        if stage.changed_inputs(inputs) == [] and not stage.damaged_files():
            return
        stage.reopen()
        digest = write_subset(pool, self.records, path)
        stage.finish(
            inputs,
            config=self.config,
            files=[path],
            subset_sha256=digest,
            num_pool=len(pool),
            num_selected=len(self.records),
        )


@contextmanager
def _named_as_asked(root: Path) -> Iterator[None]:
    """Errors of the training name the keys that a warm-up's settings have in the user's config.

    And what trains a warm-up anew: it has no `name`, and `--force` is the selection's.
    """
    try:
        yield
    except UserError as error:
        said = str(error).replace("training.hf", "selection.reference.warmup.hf")
        for remedy in _NOT_OF_A_WARMUP:
            said = re.sub(remedy, lambda _: f"delete {root} to train it anew", said)
        raise UserError(f"selection.reference.warmup: {said}") from error


def plan_warmup(config: Config, pool: Pool, marks: Marks) -> Warmup | None:
    """The warm-up that a selection asks for; None where it asks for none.

    Args:
        config: of the selection, `model.template` resolved.
        pool: the records.
        marks: those that have to go are not drawn.
    """
    reference = config.selection.reference
    if reference is None or reference.warmup is None:
        return None
    usable_N = np.ones(len(pool), dtype=bool)
    usable_N[list(marks.drop)] = False
    if config.selection.text_only == "drop":
        usable_N &= ~pool.is_text_only_N
    records = draw_records(pool.uids, np.array(pool.sources), usable_N, reference.warmup)
    trained = _training_config(read_config(config), reference.warmup, len(records))
    fields = fields_of(trained, "model")
    del fields["training.hf"]  # says how many devices share a step; what is learnt is in `warmup`
    depends = {
        **fields,
        "warmup": reference.warmup.model_dump(mode="json"),
        "model": fingerprint_model(trained.model.path, trained.model.revision),
        "pool": pool.fingerprint,
        "images": fingerprint_images(pool),
        "records": [pool.uids[index] for index in records],
        "version": _VERSION,
    }
    key = fingerprint(depends)
    asked = reference.warmup.records_per_step(len(records))
    batch_size = _records_of_step(trained, asked)
    # The key is the same for any number of devices; what another batch was trained with is not.
    place = key if batch_size == asked else fingerprint({"warmup": key, "batch_size": batch_size})
    trained = trained.model_copy(update={"name": place[:32]})
    run = RunDir(Path(trained.output_dir) / trained.name)
    return Warmup(trained, run, key, tuple(records), batch_size, asked)


def describe_reference(read: Config, warmup: Warmup | None) -> dict[str, Any]:
    """What the selection's manifest says of the model that evidence was read from.

    Args:
        read: as `read_config` gave it.
        warmup: that was trained for it.
    """
    if read.selection.reference is None:
        return {}
    adapter = adapter_of(read)
    described = {
        "model": read.model.path,
        "adapter": None if adapter is None else str(adapter),
        "warmup": None if warmup is None else warmup.describe(),
    }
    return {"reference": described}


def share_step(
    batch_size: int, num_devices: int, *, per_device: int | None = None
) -> tuple[int, int]:
    """Share a step of `batch_size` records: how many a device takes at a time, and how often.

    Where the devices cannot share it, the nearest number that they can. At a time it takes as many
    as go into its share, up to 16; unless `per_device` is given.
    """
    each = max(1, math.floor(batch_size / num_devices + 0.5))
    if per_device is not None:
        return per_device, max(1, round(batch_size / (max(per_device, 1) * num_devices)))
    fitting = max(number for number in range(1, _PER_DEVICE + 1) if each % number == 0)
    return fitting, each // fitting


def _records_of_step(trained: Config, asked: int) -> int:
    """Over all devices; as asked where the settings are nothing that the training would take."""
    per_device, accumulation = (trained.training.hf[key] for key in (_AT_A_TIME, _HOW_OFTEN))
    if isinstance(per_device, int) and isinstance(accumulation, int):
        return per_device * accumulation * world_size()
    return asked


def _training_config(read: Config, warmup: WarmupConfig, num_records: int) -> Config:
    """What the training stage is given: LLaVA-1.5's recipe for LoRA, on the records drawn."""
    given = warmup.hf.get(_AT_A_TIME)
    per_device, accumulation = share_step(
        warmup.records_per_step(num_records),
        world_size(),
        per_device=given if isinstance(given, int) else None,
    )
    hf = {
        "learning_rate": warmup.learning_rate,
        "num_train_epochs": warmup.epochs,
        "max_steps": warmup.max_steps or -1,
        _AT_A_TIME: per_device,
        _HOW_OFTEN: accumulation,
        "gradient_checkpointing": True,
        **warmup.hf,
    }
    training = TrainingConfig(
        tuning="lora",
        lora={"r": warmup.lora_rank, "lora_alpha": warmup.lora_alpha},
        learning_rates={"projector": _PROJECTOR_RATE},
        deepspeed=None,
        grace_seconds=read.training.grace_seconds,
        hf=hf,
    )
    return Config(
        name="warmup",
        seed=warmup.seed,
        output_dir=str(Path(read.output_dir) / "references"),
        model=read.model,
        data=read.data,
        selection=SelectionConfig(scorer="random", budget=num_records),
        training=training,
        evaluation=EvaluationConfig(),
    )
