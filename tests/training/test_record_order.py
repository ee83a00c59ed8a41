"""Which records the steps of a training take, also of one that goes on within an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from support.bare_trainers import bare_trainer
from torch.utils.data import Dataset
from transformers import TrainerState

from prism_tune.training import trainer as trainer_module
from prism_tune.training.trainer import TuningTrainer


class Numbered(Dataset):
    """Forty records, every second with an image, each of which is its own number."""

    lengths_N = np.arange(40) % 7 + 1
    has_image_N = np.arange(40) % 2 == 0

    def __len__(self):
        return 40

    def __getitem__(self, number):
        return number


@pytest.fixture
def take_records(make_run, monkeypatch):
    """`take_records(batching, world, rank, after=step)`: of each step, those of that process."""
    seen = []

    def step(self, model, inputs, num_items_in_batch=None):
        seen.append(inputs["numbers"].tolist())
        return torch.zeros(())

    monkeypatch.setattr(trainer_module, "Packing", lambda model: None)
    monkeypatch.setattr(TuningTrainer, "training_step", step)
    monkeypatch.setattr(TuningTrainer, "_load_from_checkpoint", lambda *_: None)

    def take(batching, world, rank, after=None):
        hf = {"max_steps": -1, "num_train_epochs": 3, "save_strategy": "no"}
        config, run = make_run(batching=batching, tokens_per_batch=8, hf=hf)
        weight = torch.nn.Parameter(torch.zeros(1))
        trainer = bare_trainer(
            config,
            run,
            train_dataset=Numbered(),
            data_collator=lambda numbers: {"numbers": torch.tensor(numbers)},
            optimizers=(torch.optim.SGD([{"params": [weight], "part": "projector"}]), None),
        )
        for shared in (PartialState._shared_state, AcceleratorState._shared_state):
            monkeypatch.setitem(shared, "num_processes", world)
            monkeypatch.setitem(shared, "process_index", rank)
        checkpoint = None
        if after is not None:
            checkpoint = run.training / f"checkpoint-{after}"
            checkpoint.mkdir(exist_ok=True)
            state = TrainerState(global_step=after, train_batch_size=2)
            state.save_to_json(str(checkpoint / "trainer_state.json"))
        seen.clear()
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return list(seen)

    return take


@pytest.mark.parametrize("batching", ["modality_length", "random", "packed"])
@pytest.mark.parametrize("world", [1, 2])
def test_what_goes_on_within_an_epoch_takes_the_records_of_an_uninterrupted_training(
    take_records, batching, world
):
    """Also within the second epoch: what it takes is that epoch's order, each record once."""
    whole = [take_records(batching, world, rank) for rank in range(world)]
    an_epoch = len(whole[0]) // 3
    for epoch in range(3):
        taken = [n for own in whole for step in own[epoch * an_epoch :][:an_epoch] for n in step]
        assert sorted(taken) == list(range(40))
    assert whole[0][:an_epoch] != whole[0][an_epoch : 2 * an_epoch]
    for after in (an_epoch, an_epoch + 3):
        rest = [take_records(batching, world, rank, after) for rank in range(world)]
        assert rest == [own[after:] for own in whole]
