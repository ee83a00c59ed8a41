"""A thin subclass of `transformers.Trainer`: our batches, learning rates, metering and resume.

Shape legend: B records of a batch, L tokens, K positions with a label.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from prism_tune.config.sections import Config
from prism_tune.data.labels import select_labelled
from prism_tune.models.guards import check_use
from prism_tune.models.packing import Packing
from prism_tune.models.tuning import parameter_groups, spare_frozen_gradients, tuned_parts
from prism_tune.processes import barrier, is_main
from prism_tune.run.worker_processes import end_unheard_workers
from prism_tune.training.arguments import check_first_step, is_reentrant
from prism_tune.training.batches import modality_sampler, packs_rows, row_loader
from prism_tune.training.callbacks import LOG_NAME, VALIDATION_LOSS, JsonLog, ProgressLine
from prism_tune.training.checkpoints import CheckpointWriter, drop_oldest, load_full_weights
from prism_tune.training.loss_watch import LossWatch
from prism_tune.training.meter import Meter
from prism_tune.training.source_losses import SourceLosses, take_sources
from prism_tune.training.validation import BestOfSaved, MeanLoss, evaluating, held_out_batches

logger = logging.getLogger(__name__)


class TuningTrainer(Trainer):
    """Trains a `TunedModel` on a `TuningDataset`.

    Args:
        config: the experiment.
        checkpoints: completes and verifies what is saved.
        meter: counts what is trained on.
        sources: names of the sources whose losses are logged apart; the batches carry numbers.
        options: of `transformers.Trainer`.
    """

    def __init__(
        self,
        config: Config,
        *,
        checkpoints: CheckpointWriter,
        meter: Meter,
        sources: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self._config = config
        self._checkpoints = checkpoints
        self._meter = meter
        self._source_losses = SourceLosses(sources)
        self._watch = LossWatch()
        self._is_checked = False
        self._packing = Packing(options["model"]) if packs_rows(config) else None
        self._best = BestOfSaved()
        # First: what is saved because somebody asks to end is no candidate.
        options["callbacks"] = [self._best, *options.get("callbacks", [])]
        super().__init__(compute_loss_func=self._label_loss, **options)
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ProgressLine())
        self.add_callback(JsonLog(self.directory / LOG_NAME))

    @property
    def directory(self) -> Path:
        """Where checkpoints and the log go."""
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._config.training.batching == "random":
            return super()._get_train_sampler(train_dataset)
        return modality_sampler(self.train_dataset, self.args, seed=self._data_seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches by number of records as Trainer makes them, or our packed rows."""
        if packs_rows(self._config):
            ways = (self.data_collator, self.args, self._config)
            return end_unheard_workers(row_loader(self.train_dataset, *ways, seed=self._data_seed))
        loader: Any = super().get_train_dataloader()
        if self._config.training.batching != "random":
            # As accelerate does with its own: else ours is told no epoch behind skipped batches.
            loader.set_sampler(self._get_train_sampler())
        return end_unheard_workers(loader)

    @property
    def _data_seed(self) -> int:
        return self._config.seed if self.args.data_seed is None else self.args.data_seed

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser of `training.hf.optim` over groups with a learning rate per part."""
        if self.optimizer is None:
            tuned: Any = self.model
            groups = parameter_groups(
                tuned,
                self._config.training,
                decayed=set(self.get_decay_parameter_names(tuned)),
                weight_decay=self.args.weight_decay,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, tuned)
            self.optimizer_cls_and_kwargs = optimizer_class, {**options, "params": list(groups)}
        return super().create_optimizer()

    def check_first_step(self) -> None:
        """Raise now what the options of optimiser, schedule and loading would raise there."""
        tuned: Any = self.model
        self.get_optimizer_cls_and_kwargs(self.args, tuned)
        check_first_step(self.args)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean over the labels of the whole step, with logits only where there is a label.

        The same value and gradients as over all positions: the others carry no loss. The head
        over a 49K vocabulary costs as much as a third of SmolLM2-135M.
        """
        if not self._is_checked:
            self._is_checked = True
            if not is_reentrant(self.args):
                tuned: Any = self.model
                spare_frozen_gradients(tuned)
            self._check_model(model)
        sources_BL = take_sources(inputs)
        if model.training:  # held-out records are not counted
            self._meter.add_batch(inputs)
        if self._packing is not None:
            inputs = self._packing.arguments(inputs)
        keep_BL, labels_K = select_labelled(inputs["labels"])
        selected = {**inputs, "logits_to_keep": keep_BL, "labels": labels_K}
        result: Any = super().compute_loss(model, selected, True, num_items_in_batch)
        if sources_BL is not None:
            self._source_losses.add(sources_BL[keep_BL], self._losses_K)
        return result if return_outputs else result[0]

    def _check_model(self, model: Any) -> None:
        """Before the first step, on the first example with an image: the same in every process.

        Raises:
            UserError: see `models.guards`.
        """
        dataset: Any = self.train_dataset
        if not dataset.has_image_N.any():
            return
        collate: Any = self.data_collator
        inputs = self._prepare_inputs(collate([dataset[int(dataset.has_image_N.argmax())]]))
        take_sources(inputs)
        tuned: Any = self.model

        def forward(given: Any, keep_BL: torch.Tensor) -> torch.Tensor:
            arguments = given if self._packing is None else self._packing.arguments(given)
            options = {**arguments, "use_cache": False, "logits_to_keep": keep_BL}
            logits_KV: torch.Tensor = model(**options).logits
            return logits_KV

        check_use(forward, inputs, tuned_parts(tuned))

    def _label_loss(
        self,
        outputs: Any,
        labels_K: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Summed over this batch, divided by the labels of all batches and processes of the step.

        Families differ in whether they divide so themselves; here all do.
        """
        losses_K = functional.cross_entropy(
            outputs["logits"].float(),
            labels_K,
            reduction="none",
            label_smoothing=self.args.label_smoothing_factor,
        )
        self._losses_K = losses_K.detach()
        num_labels = len(labels_K) if num_items_in_batch is None else num_items_in_batch
        return losses_K.sum() / num_labels

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add tokens/s and images/s, meter them, and watch the loss; called on every rank."""
        if "loss" in logs:
            self._watch.add(self.state.global_step, logs["loss"])
            logs.update(self._rates)
            logs.update(self._meter.read(self.accelerator))
            logs.update(self._source_losses.read(self.accelerator))
        super().log(logs, start_time)

    def _get_learning_rate(self) -> float:
        """The first group's, as Trainer logs it; called before the schedule's next step."""
        optimizer: Any = self.optimizer
        groups = optimizer.param_groups
        self._rates = {f"learning_rate/{g['part']}": float(g["lr"]) for g in groups}
        return super()._get_learning_rate()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Log the mean loss per labelled token of the held-out records, in all and by source."""
        held_out: Any = self.eval_dataset
        mean, by_source = MeanLoss(), SourceLosses(held_out.names)
        of_training, model = self._source_losses, self.model_wrapped
        with evaluating(model, self.optimizer), self.compute_loss_context_manager():
            for batch, counts in held_out_batches(held_out, self.data_collator, self.args):
                self._source_losses = by_source if counts else SourceLosses(held_out.names)
                inputs = self._prepare_inputs(batch)
                loss = self.compute_loss(model, inputs)
                if counts:
                    mean.add(loss, inputs["labels"])
        self._source_losses = of_training
        metrics = {VALIDATION_LOSS: mean.read(self.accelerator)}
        metrics |= {f"eval_{key}": v for key, v in by_source.read(self.accelerator).items()}
        self.log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Resume full weights in our way (see there)."""
        target: Any = self.model if model is None else model
        if isinstance(target, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_full_weights(target, resume_from_checkpoint)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether to save under `save_strategy: best`; asked to end, a step is saved anyway."""
        counts = self._best.counts(self.args)
        is_best = counts and bool(super()._determine_best_metric(metrics, trial))
        return is_best or self.control.should_save

    def end_with_best(self) -> None:
        """What Trainer does behind its last step, where there was none left to do."""
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def _load_best_model(self) -> None:
        """The checkpoint of the lowest loss over the held-out records, as it was saved."""
        best = self.state.best_model_checkpoint
        assert best is not None
        logger.info("training: the lowest held-out loss is %s, of %s", self.state.best_metric, best)
        if self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(best)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Under ZeRO 0 to 2 as under DDP: transformers has every rank copy the model before."""
        before = self.is_deepspeed_enabled
        self.is_deepspeed_enabled = before and is_deepspeed_zero3_enabled()
        super().save_model(output_dir, _internal_call)
        self.is_deepspeed_enabled = before

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self._checkpoints.complete(Path(output_dir or self.directory), self.model)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Older checkpoints go only after the new one is complete, also with a limit of 1."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        assert self.model is not None
        latest = self.directory / f"checkpoint-{self.state.global_step}"
        self._checkpoints.finish(latest, self.model, only_model=self.args.save_only_model)
        if self.is_world_process_zero():
            best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
            drop_oldest(self.directory, limit, best)

    def save_verified(self, directory: Path) -> None:
        """Write the tuned model, prove that it is what was trained, then give it its name.

        Called on every rank.

        Raises:
            UserError: as `CheckpointWriter.verify_final`.
        """
        partial = directory.with_name(f"{directory.name}.partial")
        self.save_model(str(partial))
        assert self.model is not None
        self._checkpoints.verify_final(partial, self.model)
        if is_main():
            os.replace(partial, directory)
        barrier()
