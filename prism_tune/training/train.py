"""The training stage: the selected records and a model go in, a tuned checkpoint comes out.

Reads `selection/subset.json` (or the pool) and the model; writes `training/` of the run folder.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from transformers import set_seed
from transformers.utils import logging as hf_logging

from prism_tune.config.sections import Config
from prism_tune.models.checkpoint import digest_trained
from prism_tune.models.load import pick_device
from prism_tune.models.processor import load_processor
from prism_tune.models.tuning import TunedModel, load_for_tuning, prepare_tuning
from prism_tune.processes import barrier, is_main
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage, must_run
from prism_tune.training.arguments import compute_dtype, training_arguments
from prism_tune.training.batches import build_collator
from prism_tune.training.callbacks import LOG_NAME, read_log
from prism_tune.training.checkpoints import (
    CheckpointWriter,
    clear_checkpoints,
    find_checkpoint,
)
from prism_tune.training.examples import build_examples
from prism_tune.training.inputs import stage_inputs
from prism_tune.training.launch import training_group
from prism_tune.training.meter import build_meter, metered
from prism_tune.training.resume import AllStepsDone, StopAfterLastStep
from prism_tune.training.source_losses import SourcedCollator, SourcedExamples
from prism_tune.training.tracking import DescribeRun
from prism_tune.training.trainer import TuningTrainer

logger = logging.getLogger(__name__)


def train(config: Config, run: RunDir, *, force: bool = False) -> None:
    """Tune the model; a finished stage is skipped, a killed one goes on from its last checkpoint.

    Raises:
        UserError: the selection has not finished, or the training went wrong (NaN, nothing learnt,
            a checkpoint that does not hold what was trained).
    """
    if config.training.tuning == "none":
        logger.info("training: tuning is `none`, the model stays as it is")
        return
    stage = Stage(run.training)
    inputs = stage_inputs(config, run)
    if not must_run("training", stage, inputs, force=force):
        return
    hf_logging.disable_progress_bar()  # of loading and saving: they would cut through ours
    device = torch.device("cpu") if config.training.hf.get("use_cpu") else pick_device()
    key = fingerprint(inputs)
    with (
        training_group(device, config.training),
        metered(run, key, device, restart=force) as timer,
    ):
        checkpoint = _open_stage(stage, run, key, force=force)
        dtype = compute_dtype(config, device)
        arguments = training_arguments(config, run, device=device, dtype=dtype)

        processor = load_processor(config.model)
        sourced = SourcedExamples(build_examples(config, run, processor))

        model = _load_model(config, arguments.seed, dtype, device)
        checkpoints = CheckpointWriter(config, inputs, initial=digest_trained(model))

        trainer = TuningTrainer(
            config,
            checkpoints=checkpoints,
            meter=build_meter(timer, model),
            model=model,
            args=arguments,
            sources=sourced.names,
            train_dataset=sourced,
            data_collator=SourcedCollator(build_collator(config, processor)),
            processing_class=processor,
            callbacks=[DescribeRun(config, inputs), StopAfterLastStep()],
        )
        with suppress(AllStepsDone):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

        _save_final(trainer, run, checkpoints)
        if is_main():
            steps = read_log(run.training / LOG_NAME)
            stage.finish(
                inputs,
                config=config,
                num_records=len(sourced),
                num_steps=trainer.state.global_step,
                final_loss=steps[-1]["loss"],
                checkpoint=str(run.checkpoint),
            )
            logger.info("training: %d steps, %s", trainer.state.global_step, run.checkpoint)


def _open_stage(stage: Stage, run: RunDir, key: str, *, force: bool) -> Path | None:
    """Forget what is outdated; returns the checkpoint to go on from."""
    checkpoint = None if force else find_checkpoint(run, key)
    barrier()
    if is_main():
        stage.reopen()
        clear_checkpoints(run, keep=checkpoint)
    barrier()
    if checkpoint is not None:
        logger.info("training: goes on from %s", checkpoint)
    return checkpoint


def _load_model(config: Config, seed: int, dtype: torch.dtype, device: torch.device) -> TunedModel:
    """The model ready for tuning, seeded so that everything drawn from here on is repeatable."""
    base = load_for_tuning(config.model, config.training, dtype=dtype, device=device)
    set_seed(seed)  # only now: loading draws differently under ZeRO-3
    # DeepSpeed keeps float32 masters of its own.
    weights_dtype = torch.float32 if config.training.deepspeed is None else dtype
    return prepare_tuning(base, config.training, weights_dtype=weights_dtype)


def _save_final(trainer: TuningTrainer, run: RunDir, checkpoints: CheckpointWriter) -> None:
    """Write the tuned model, prove that it is what was trained, then give it its name."""
    partial = run.checkpoint.with_name("final.partial")
    if is_main():
        shutil.rmtree(partial, ignore_errors=True)
    barrier()
    trainer.save_model(str(partial))
    assert trainer.model is not None
    checkpoints.verify_final(partial, trainer.model)
    if is_main():
        os.replace(partial, run.checkpoint)
    barrier()
