"""A thin subclass of `transformers.Trainer`: our batches, learning rates, metering and resume.

Shape legend: B records of a batch, L tokens, K positions with a label.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, Trainer, modeling_utils
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from prism_tune.config import Config
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.data.sampler import ModalityLengthSampler
from prism_tune.errors import UserError
from prism_tune.models.tuning import parameter_groups
from prism_tune.training.batches import token_budget_loader
from prism_tune.training.checkpoints import CheckpointWriter, drop_oldest
from prism_tune.training.meter import Meter
from prism_tune.training.progress import LOG_NAME, JsonLog, ProgressLine
from prism_tune.training.source_losses import SourceLosses, take_sources

logger = logging.getLogger(__name__)

_CONSTANT_LOSSES = 20


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
        self._recent_losses: list[float] = []
        super().__init__(**options)
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ProgressLine())
        self.add_callback(JsonLog(self._directory / LOG_NAME))

    @property
    def _directory(self) -> Path:
        assert self.args.output_dir is not None
        return Path(self.args.output_dir)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self._config.training.batching == "random":
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        dataset: Any = self.train_dataset
        return ModalityLengthSampler(
            dataset.lengths_N,
            dataset.has_image_N,
            self.args.train_batch_size,
            self.args.world_size,
            self._data_seed,
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches by number of records as Trainer makes them, or ours by number of tokens."""
        if self._config.training.batching != "token_budget":
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        return token_budget_loader(
            self.train_dataset, self.data_collator, self.args, self._config, seed=self._data_seed
        )

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
            self.optimizer = optimizer_class(list(groups), **options)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The model's own loss, with logits computed only where there is a label.

        The same value and gradients as over all positions: the others carry no loss. The head
        over a 49K vocabulary costs as much as a third of SmolLM2-135M.
        """
        self._meter.add_batch(inputs)
        sources_B = take_sources(inputs)
        if not self._selects_logits():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        selected = select_labelled(inputs["labels"])
        result: Any = super().compute_loss(model, {**inputs, **selected}, True, num_items_in_batch)
        if sources_B is not None:
            keep_BL, labels_K = selected["logits_to_keep"], selected["shift_labels"]
            self._source_losses.add(sources_B, keep_BL, labels_K, result[1]["logits"])
        return result if return_outputs else result[0]

    def _selects_logits(self) -> bool:
        # Older transformers cannot select per row; liger fuses the head with the loss.
        return hasattr(modeling_utils, "slice_logits_to_keep") and not self.args.use_liger_kernel

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add tokens/s and images/s, meter them, and watch the loss; called on every rank."""
        if "loss" in logs:
            self._watch(logs["loss"])
            logs.update(self._meter.read(self.accelerator))
            logs.update(self._source_losses.read(self.accelerator))
        super().log(logs, start_time)

    def _watch(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"step {self.state.global_step}: the loss is {loss}; lower the learning rate, or "
                "use bf16 in place of fp16; finished checkpoints are kept"
            )
        self._recent_losses = [*self._recent_losses, loss][-_CONSTANT_LOSSES:]
        if len(self._recent_losses) == _CONSTANT_LOSSES and len(set(self._recent_losses)) == 1:
            logger.warning(
                "step %d: the loss has been exactly %s for %d log lines: nothing is learnt",
                self.state.global_step,
                loss,
                _CONSTANT_LOSSES,
            )
            self._recent_losses = []

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Resume full weights through `from_pretrained`.

        Trainer loads the file's keys as they are, non-strictly; `save_pretrained` writes them in
        the published layout, which differs, so that resuming would start from the base weights
        with no more than a warning.
        """
        target: Any = self.model if model is None else model
        if isinstance(target, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        assert isinstance(target, PreTrainedModel)
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
        target.load_state_dict(saved.state_dict())

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self._checkpoints.complete(Path(output_dir or self._directory))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Older checkpoints go only after the new one is complete, also with a limit of 1."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        assert self.model is not None
        latest = self._directory / f"checkpoint-{self.state.global_step}"
        self._checkpoints.finish(latest, self.model)
        if self.is_world_process_zero():
            drop_oldest(self._directory, limit)


def select_labelled(labels_BL: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which positions predict a label, and those labels, as arguments of a HF model's `forward`.

    Returns:
        `logits_to_keep`: boolean, B x L; `shift_labels`: K labels, in the same order.
    """
    next_BL = torch.nn.functional.pad(labels_BL, (0, 1), value=IGNORED_LABEL)[:, 1:]
    keep_BL = next_BL != IGNORED_LABEL
    return {"logits_to_keep": keep_BL, "shift_labels": next_BL[keep_BL]}
