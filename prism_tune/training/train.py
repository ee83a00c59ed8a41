"""The training stage: the selected records and a model go in, a tuned checkpoint comes out.

Reads `selection/subset.*` (or the pool) and the model; writes `training/` of the run folder, or
`training.next/` where a training has finished there. Everything is checked before anything on disk
is touched, and a finished model is replaced only by another that has finished (`finished.py`).
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging as hf_logging

from prism_tune.chat.templates import add_end_token, end_token
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.interrupts import postponed
from prism_tune.models.checkpoint import digest_trained
from prism_tune.models.devices import name_dtype, pick_device
from prism_tune.models.hub import check_model
from prism_tune.models.processor import load_processor, resolve_template
from prism_tune.models.tuning import TunedModel, check_tuning, load_for_tuning, prepare_tuning
from prism_tune.processes import barrier, is_main, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.log import open_log
from prism_tune.run.ranks import require_same, require_same_run
from prism_tune.run.stage import Stage
from prism_tune.run.timings import StageTimer
from prism_tune.run.writer import one_writer
from prism_tune.run.written import read_log
from prism_tune.training.arguments import (
    check_options,
    compute_dtype,
    refused_by_library,
    training_arguments,
)
from prism_tune.training.batches import build_collator, check_full_batch, fit_loader, global_batch
from prism_tune.training.callbacks import (
    LOG_NAME,
    VALIDATION_LOSS,
    AllStepsDone,
    DescribeRun,
    KeepIntervals,
    RequireLearning,
    StopAfterLastStep,
    StopWhenAsked,
    closed_tracking,
    untold_changes,
)
from prism_tune.training.checkpoints import (
    CheckpointWriter,
    clear_checkpoints,
    complete_checkpoints,
    find_checkpoint,
    work_directory,
)
from prism_tune.training.checks import check_metric_source
from prism_tune.training.examples import build_examples
from prism_tune.training.finished import must_train, swap_in
from prism_tune.training.inputs import stage_inputs
from prism_tune.training.launch import training_group
from prism_tune.training.meter import build_meter, stage_timer
from prism_tune.training.source_losses import SourcedCollator, SourcedExamples
from prism_tune.training.states import read_safely
from prism_tune.training.trainer import TuningTrainer
from prism_tune.training.validation import kept_step, take_result

logger = logging.getLogger(__name__)


@one_writer
def train(config: Config, run: RunDir, *, force: bool = False) -> None:
    """Tune the model; a finished stage is skipped, a killed one goes on from its last checkpoint.

    Raises:
        UserError: the selection has not finished, a training of other inputs would be replaced, or
            the training went wrong (NaN, nothing learnt, stopped early, a checkpoint that does not
            hold what was trained).
    """
    if config.training.tuning == "none":
        logger.info("training: tuning is `none`, the model stays as it is")
        return
    device = torch.device("cpu") if config.training.hf.get("use_cpu") else pick_device()
    check_options(config)
    check_model(config.model)
    check_tuning(config.training, device)
    config = resolve_template(config)
    with ExitStack() as stack:
        group = training_group(device, config.training)
        if world_size() > 1:  # before any rank begins to work: one alone would be waited for
            stack.enter_context(group)
            require_same_run(config)
        if is_main():
            swap_in(run)
        barrier()
        inputs = stage_inputs(config, run)
        require_same(inputs)
        if not must_train(run, inputs, force=force):
            return
        if world_size() == 1:
            stack.enter_context(group)
        _train(config, run, inputs, device=device, force=force)


def _train(
    config: Config, run: RunDir, inputs: dict[str, Any], *, device: torch.device, force: bool
) -> None:
    """Train from the first step or a checkpoint to the last, and put the model in its place."""
    hf_logging.disable_progress_bar()  # of loading and saving: they would cut through ours
    key = fingerprint(inputs)
    directory = work_directory(run)
    dtype = compute_dtype(config, device)
    checkpoint = None if force else find_checkpoint(directory, key, dtype)
    timer = stage_timer(run, key, device, restart=force, goes_on=checkpoint is not None)
    require_same(
        {
            "checkpoint to go on from": checkpoint and checkpoint.name,
            "device": device.type,
            "dtype": name_dtype(dtype),
        }
    )
    trainer, skipped = _prepare(config, run, inputs, device=device, dtype=dtype, timer=timer)
    open_log(run.log)
    _open_directory(directory, skipped, keep=checkpoint)
    has_deepspeed = config.training.deepspeed is not None
    # Outermost: asked to end behind the last step, the training has finished, with all it records.
    with postponed(config.training.grace_seconds):
        with closed_tracking(trainer.args), timer or nullcontext():
            with read_safely(checkpoint, deepspeed=has_deepspeed), untold_changes():
                try:
                    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
                except AllStepsDone:
                    trainer.end_with_best()
            _finish(trainer, config, run, inputs)
        if is_main():
            swap_in(run)
        barrier()


def _prepare(
    config: Config,
    run: RunDir,
    inputs: dict[str, Any],
    *,
    device: torch.device,
    dtype: torch.dtype,
    timer: StageTimer | None,
) -> tuple[TuningTrainer, list[dict[str, Any]]]:
    """Everything that can go wrong before the first step, with nothing written yet.

    Returns:
        The trainer, and the records that are left out.
    """
    arguments = training_arguments(config, run, device=device, dtype=dtype)
    processor = load_processor(config.model)
    examples = build_examples(config, run, processor)
    sourced = SourcedExamples(examples.trained)
    held_out = SourcedExamples(examples.held_out) if examples.held_out else None
    check_full_batch(arguments, sourced, config)
    if held_out is not None:
        check_metric_source(arguments.metric_for_best_model, held_out.names)
    model = _load_model(config, arguments.seed, dtype, device)
    add_end_token(model, processor, end_token(config.model.template, processor))
    with refused_by_library("training.hf"):
        trainer = TuningTrainer(
            config,
            checkpoints=CheckpointWriter(config, inputs, digest_trained(model), dtype),
            meter=build_meter(timer, model),
            model=model,
            args=arguments,
            sources=sourced.names,
            train_dataset=sourced,
            eval_dataset=held_out,
            data_collator=SourcedCollator(build_collator(config, processor)),
            processing_class=processor,
            callbacks=[
                DescribeRun(config, inputs),
                StopAfterLastStep(),
                KeepIntervals(),
                RequireLearning(),
                StopWhenAsked(),
            ],
        )
        trainer.check_first_step()
    fit_loader(arguments, sourced, config, held_out=held_out)
    return trainer, examples.skipped


def _load_model(config: Config, seed: int, dtype: torch.dtype, device: torch.device) -> TunedModel:
    """The model ready for tuning, seeded so that everything drawn from here on is repeatable."""
    base = load_for_tuning(config.model, config.training, dtype=dtype, device=device)
    set_seed(seed)  # only now: loading draws differently under ZeRO-3
    # DeepSpeed keeps float32 masters of its own.
    weights_dtype = torch.float32 if config.training.deepspeed is None else dtype
    with refused_by_library(f"training.{config.training.tuning}"):
        return prepare_tuning(base, config.training, weights_dtype=weights_dtype)


def _open_directory(directory: Path, skipped: list[dict[str, Any]], keep: Path | None) -> None:
    """Forget what nothing goes on from; from here on the stage writes."""
    barrier()
    if is_main():
        clear_checkpoints(directory, keep=keep)
        write_json(directory / "skipped.json", skipped)
    barrier()
    if keep is not None:
        logger.info("training: goes on from %s", keep)


def _finish(trainer: TuningTrainer, config: Config, run: RunDir, inputs: dict[str, Any]) -> None:
    """Write the tuned model, prove that it is what was trained, and record that it finished.

    Raises:
        UserError: training stopped before its last step, or `CheckpointWriter.verify_final`.
    """
    step, num_steps = trainer.state.global_step, trainer.state.max_steps
    if step < num_steps:
        saved = complete_checkpoints(trainer.directory)
        begin = f"goes on from {saved[0]}" if saved else "starts again: no checkpoint was saved"
        raise UserError(
            f"training stopped at step {step} of {num_steps}: it has not finished; the same "
            f"command {begin}"
        )
    if not trainer.args.load_best_model_at_end:  # what it loads is a result already
        take_result(trainer.optimizer)
    trainer.save_verified(trainer.directory / "final")
    if is_main():
        examples: Any = trainer.train_dataset
        held_out: Any = trainer.eval_dataset
        kept = kept_step(trainer.args, trainer.state)
        whole = read_log(trainer.directory / LOG_NAME)
        lines = [line for line in whole if line["step"] <= kept]
        validated = [line[VALIDATION_LOSS] for line in lines if VALIDATION_LOSS in line]
        Stage(trainer.directory).finish(
            inputs,
            config=config,
            files=sorted((trainer.directory / "final").iterdir()),
            num_records=len(examples),
            num_steps=step,
            num_processes=world_size(),
            global_batch=global_batch(trainer.args, config),
            final_loss=[line["loss"] for line in lines if "loss" in line][-1],
            num_held_out=len(held_out or ()),
            held_out_loss=validated[-1] if validated else None,
            checkpoint=str(run.checkpoint),
        )
        logger.info("training: %d steps, %s", step, run.checkpoint)
