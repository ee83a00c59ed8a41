"""Optimisers that ask more of a trainer than a step: other weights to evaluate, other precisions.

What they are libraries for is not installed here: stand-ins have what the libraries' own have.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.bare_trainers import bare_trainer

from prism_tune.models.load import load_model
from prism_tune.models.tuning import prepare_tuning
from prism_tune.training import train
from prism_tune.training import trainer as trainer_module
from prism_tune.training.trainer import TuningTrainer


class ScheduleFree(torch.optim.SGD):
    """Trains a weight of 1, and has arrived at one of 7."""

    def train(self):
        self._set(1.0)

    def eval(self):
        self._set(7.0)

    def _set(self, value):
        self.param_groups[0]["params"][0].data.fill_(value)


def test_a_schedule_free_optimiser_is_evaluated_where_it_has_arrived(make_run, monkeypatch):
    """And what is saved then, before the next step, is what was evaluated."""
    batch = {"labels": torch.tensor([[-100, 3]])}
    monkeypatch.setattr(trainer_module, "held_out_batches", lambda *_: [(batch, True)])
    monkeypatch.setattr(
        TuningTrainer, "compute_loss", lambda self, model, inputs: model(torch.ones(1, 1)).sum()
    )
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = ScheduleFree(model.parameters())
    optimizer.train()
    held_out = SimpleNamespace(names=[])
    options = {"eval_dataset": held_out, "optimizers": (optimizer, None)}
    trainer = bare_trainer(*make_run(validation=0.3), model=model, **options)
    trainer.optimizer = trainer.accelerator.prepare_optimizer(optimizer)
    assert trainer.evaluate()["eval_loss"] == 7.0
    assert model.weight.item() == 7.0
    assert model.training


class SavedError(Exception):
    """In place of what would be written."""


@pytest.mark.parametrize(("loads_best", "kept"), [(False, 7.0), (True, 1.0)])
def test_what_is_kept_at_the_end_is_where_it_has_arrived(make_run, loads_best, kept):
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = ScheduleFree(model.parameters())
    optimizer.train()

    def save(directory):
        raise SavedError(model.weight.item())

    config, run = make_run()
    trainer: Any = SimpleNamespace(
        args=SimpleNamespace(load_best_model_at_end=loads_best),
        state=SimpleNamespace(global_step=3, max_steps=3),
        optimizer=optimizer,
        directory=run.training,
        save_verified=save,
    )
    with pytest.raises(SavedError, match=str(kept)):
        train._finish(trainer, config, run, {})


class EightBit(torch.optim.AdamW):
    def __init__(self, params, *, optim_bits, **options):
        super().__init__(params, **options)


EightBit.__module__ = "bitsandbytes.optim"


@pytest.fixture
def in_32_bits(monkeypatch):
    """The modules whose weights bitsandbytes is told to keep the states of in 32 bits."""
    kept = []

    def override(module, name, options):
        assert (name, options) == ("weight", {"optim_bits": 32})
        kept.append(module)

    manager = SimpleNamespace(register_module_override=override)
    of_all = SimpleNamespace(get_instance=lambda: manager)
    optim = SimpleNamespace(GlobalOptimManager=of_all)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=optim))
    return kept


def test_8_bits_are_not_those_of_embeddings_and_each_part_has_its_rate(
    make_run, in_32_bits, monkeypatch
):
    monkeypatch.setattr(
        TuningTrainer,
        "get_optimizer_cls_and_kwargs",
        lambda *_: (EightBit, {"lr": 1e-4, "optim_bits": 8}),
    )
    config, run = make_run(tuning="full", learning_rates={"projector": 1e-2})
    base = load_model(config.model, dtype=torch.float32)
    model = prepare_tuning(base, config.training, weights_dtype=torch.float32)
    optimizer = bare_trainer(config, run, model=model).create_optimizer()
    assert isinstance(optimizer, EightBit)
    rates = {(group["part"], group["lr"]) for group in optimizer.param_groups}
    assert rates == {("projector", 1e-2), ("language_model", 1e-4)}
    assert model.get_input_embeddings() in in_32_bits
    assert all(isinstance(module, torch.nn.Embedding) for module in in_32_bits)
