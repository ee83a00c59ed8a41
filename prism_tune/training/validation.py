"""The loss of records held out of a training, measured while it tunes.

`training.validation` is a share of the records. Whether a record is held out depends on its own
content alone: no run of an experiment trains on what another is measured by, whatever its subset,
seed or number of processes. In: examples. Out: those to train on, those held out, and their loss.

Shape legend: W processes, B held-out batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.labels import IGNORED_LABEL
from prism_tune.errors import ConfigError, UserError
from prism_tune.run.worker_processes import end_unheard_workers
from prism_tune.training.checkpoints import checkpoint_step
from prism_tune.training.source_losses import SourcedExamples

_BITS = 64


def hold_out(examples: TuningDataset, share: float) -> tuple[TuningDataset, TuningDataset | None]:
    """Split off the records whose content draws them; None with a share of 0.

    Raises:
        ConfigError: none, or all of the records would be held out.
    """
    if not share:
        return examples, None
    uids = examples.pool.uids
    drawn_N = np.array([is_held_out(uids[index], share) for index in examples.indices])
    if drawn_N.all() or not drawn_N.any():
        raise ConfigError(
            f"training.validation = {share}: of {len(examples)} records "
            f"{'all' if drawn_N.all() else 'none'} would be held out; choose another share, or 0"
        )
    return examples.part(np.flatnonzero(~drawn_N)), examples.part(np.flatnonzero(drawn_N))


def is_held_out(uid: str, share: float) -> bool:
    """Whether a record is one of that share: by a hash of its own, independent of any order."""
    digest = hashlib.blake2b(f"validation {uid}".encode(), digest_size=_BITS // 8).digest()
    return int.from_bytes(digest) < share * 2**_BITS


class HeldOutBatches(Sampler[list[int]]):
    """This process's batches of records of similar length, the same number on every process.

    Where B is no multiple of W, the first batch is repeated at the end: ranks have to call a
    sharded model equally often. `counts` says of each batch whether it is one to count.
    """

    def __init__(
        self, lengths_N: Sequence[int], batch_size: int, *, rank: int, world_size: int
    ) -> None:
        order = np.argsort(-np.asarray(lengths_N), kind="stable").tolist()
        batches = [order[n : n + batch_size] for n in range(0, len(order), batch_size)]
        num_each = -(-len(batches) // world_size)
        places = [turn * world_size + rank for turn in range(num_each)]
        self.counts = [place < len(batches) for place in places]
        self._batches = [batches[place] if place < len(batches) else batches[0] for place in places]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        """The records of each batch, by number."""
        return iter(self._batches)


def held_out_batches(
    examples: SourcedExamples, collate: Callable[..., Any], arguments: Any
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Batches of `training.hf.per_device_eval_batch_size` records, and which count.

    Args:
        examples: held out.
        collate: as in training, padded or packed.
        arguments: of the trainer, for batch size, workers and this process's rank.
    """
    sampler = HeldOutBatches(
        examples.lengths_N.tolist(),
        arguments.per_device_eval_batch_size,
        rank=arguments.process_index,
        world_size=arguments.world_size,
    )
    loader = DataLoader(
        examples,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
        generator=torch.Generator(),  # drawing from torch's own would change the next dropout
    )
    end_unheard_workers(loader)
    return zip(loader, sampler.counts, strict=True)


@contextmanager
def evaluating(model: nn.Module, optimizer: Any) -> Iterator[None]:
    """Within it the model is the one that would be kept, without dropout.

    Those of a schedule-free optimiser stay until the next step: a checkpoint that is saved before
    has what was evaluated.
    """
    model.eval()
    take_result(optimizer)
    with torch.no_grad():
        yield
    model.train()


def take_result(optimizer: Any) -> None:
    """Of a schedule-free optimiser the weights it has arrived at, in place of those it trains."""
    if callable(getattr(optimizer, "eval", None)):
        optimizer.eval()


class BestOfSaved(TrainerCallback):
    """Of the checkpoints that the schedule saves, all are evaluated, and one is the best.

    Trainer takes the best of all evaluations, of which some have no checkpoint to go back to. What
    is saved between, because somebody asks to end, is none either: the model would depend on that.
    """

    def __init__(self) -> None:
        self._is_saved = False

    def counts(self, args: TrainingArguments) -> bool:
        """Whether the step's model could be gone back to, and anybody would.

        A schedule that follows the loss makes a metric, too: Trainer would count on a best
        checkpoint that nobody keeps.
        """
        by_loss = args.save_strategy == SaveStrategy.BEST  # then its being the best saves it
        return by_loss or (args.load_best_model_at_end and self._is_saved)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Find the best checkpoint where the run folder is now, which may have been moved.

        Raises:
            UserError: it is gone: Trainer would end with the last step's model.
        """
        if not (args.load_best_model_at_end and state.best_global_step):
            return
        assert args.output_dir is not None
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if not best.is_dir():
            raise UserError(
                f"{best}: gone; its held-out loss is the lowest so far, and this training ends "
                "with the best checkpoint: put it back, or train anew with --force"
            )
        state.best_model_checkpoint = str(best)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The schedule has decided by now what is done at this step."""
        self._evaluate_saved(args, control, is_due=args.eval_delay <= state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """With strategies of `epoch` that is where it decides."""
        self._evaluate_saved(args, control, is_due=args.eval_delay <= (state.epoch or 0))

    def _evaluate_saved(
        self, args: TrainingArguments, control: TrainerControl, *, is_due: bool
    ) -> None:
        self._is_saved = control.should_save
        if args.load_best_model_at_end and control.should_save and is_due:
            control.should_evaluate = True


def kept_step(args: TrainingArguments, state: TrainerState) -> int:
    """The step whose model is the tuned one: the last, or the best checkpoint's."""
    best = state.best_model_checkpoint if args.load_best_model_at_end else None
    return state.global_step if best is None else checkpoint_step(Path(best))


class MeanLoss:
    """The mean loss of a labelled token over batches and processes."""

    def __init__(self) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64)

    def add(self, loss: torch.Tensor, labels_BL: torch.Tensor) -> None:
        """Count a batch by its mean loss."""
        num_labels = (labels_BL[:, 1:] != IGNORED_LABEL).sum().double().cpu()
        self._sums += torch.stack([loss.detach().double().cpu() * num_labels, num_labels])

    def read(self, accelerator: Accelerator) -> float:
        """The mean so far; called on every rank."""
        total, count = accelerator.gather(self._sums.to(accelerator.device)[None]).sum(dim=0)
        return float(total / count)
