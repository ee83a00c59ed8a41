"""A share of the records held out of training: which, and their loss while tuning."""

from __future__ import annotations

import logging
import math
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.training_runs import weights
from transformers import TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from prism_tune.config.sections import ModelConfig
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.interrupts import Interrupted
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.written import read_log
from prism_tune.training import callbacks
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer
from prism_tune.training.validation import BestOfSaved, HeldOutBatches, MeanLoss, is_held_out


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 4))
def test_every_held_out_record_counts_once_and_ranks_call_equally_often(lengths, size, world):
    ranks = [HeldOutBatches(lengths, size, rank=r, world_size=world) for r in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    counted = [
        number
        for rank in ranks
        for batch, counts in zip(rank, rank.counts, strict=True)
        if counts
        for number in batch
    ]
    assert sorted(counted) == list(range(len(lengths)))


def test_what_is_held_out_depends_on_the_record_alone_and_a_larger_share_holds_a_smaller():
    uids = [f"uid-{number}" for number in range(4000)]
    small = {uid for uid in uids if is_held_out(uid, 0.05)}
    large = {uid for uid in uids if is_held_out(uid, 0.2)}
    assert small < large
    assert len(small) / 4000 == pytest.approx(0.05, abs=0.015)
    assert len(large) / 4000 == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    "hf",
    [
        {"eval_strategy": "epoch"},
        {"eval_on_start": True},
        {"load_best_model_at_end": True},
        {"save_strategy": "best"},
    ],
)
def test_evaluating_without_held_out_records_is_refused_before_anything_is_loaded(make_run, hf):
    config, run = make_run(hf=hf)
    with pytest.raises(ConfigError, match=f"{next(iter(hf))}.* needs .* training.validation"):
        train(config, run)
    assert not run.training.exists()


def test_a_share_that_holds_nothing_out_is_refused(make_run):
    config, run = make_run(validation=1e-6)
    with pytest.raises(ConfigError, match=r"validation = 1e-06: of 26 records none"):
        train(config, run)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["modality_length", "packed"])
def test_held_out_records_are_not_learnt_and_their_loss_is_the_tuned_models(
    make_run, mixed_pool, batching
):
    config, run = make_run(
        file=mixed_pool,
        tuning="full",
        validation=0.3,
        batching=batching,
        hf={"eval_steps": 3, "per_device_eval_batch_size": 2},
    )
    train(config, run)
    log = read_log(run.training / "log.jsonl")
    assert [line["step"] for line in log if "eval_loss" in line] == [3, 6]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    outputs = read_json(run.training / "stage.json")["outputs"]
    pool = open_pool(config.data)
    held_out = [n for n in range(len(pool)) if is_held_out(pool.uids[n], 0.3)]
    assert outputs["num_held_out"] == len(held_out) > 0
    assert outputs["num_records"] == len(pool) - len(held_out)
    assert outputs["held_out_loss"] == log[-1]["eval_loss"]
    assert log[-1]["eval_loss"] == pytest.approx(plain_loss(config, run, held_out), rel=1e-4)
    sources = {key for key in log[-1] if key.startswith("eval_loss/")}
    assert sources == {f"eval_loss/{pool.sources[n]}" for n in held_out}


def plain_loss(config, run, held_out):
    """Of the tuned model, one record at a time: the mean over all labelled tokens."""
    from prism_tune.data.dataset import TuningDataset

    tuned = ModelConfig(path=str(run.training / "final"))
    model = load_model(tuned, dtype=torch.float32).eval()
    examples = TuningDataset(
        open_pool(config.data),
        held_out,
        load_processor(config.model),
        config.model.template,
        config.data.max_length,
    )
    total = count = 0
    for example in examples:
        tokens = {
            k: v[None] for k, v in example.items() if k in ("input_ids", "attention_mask", "labels")
        }
        pixels = {k: v for k, v in example.items() if k == "pixel_values"}
        with torch.no_grad():
            loss = model(**tokens, **pixels).loss.item()
        num = int((example["labels"][1:] != -100).sum())
        total, count = total + loss * num, count + num
    return total / count


@pytest.mark.slow
def test_how_often_held_out_records_are_evaluated_changes_nothing_that_is_learnt(make_run):
    """LoRA's dropout on a CPU is drawn from torch's own generator."""
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.5}
    tuned = []
    for steps in (1, 3):
        config, run = make_run(
            f"every-{steps}", tuning="lora", lora=lora, validation=0.3, hf={"eval_steps": steps}
        )
        train(config, run)
        tuned.append(weights(run.checkpoint))
    often, seldom = tuned
    assert all(torch.equal(often[name], seldom[name]) for name in often)


@pytest.mark.slow
def test_every_groups_learning_rate_is_logged(make_run):
    config, run = make_run(learning_rates={"projector": 5e-4}, hf={"max_steps": 2})
    train(config, run)
    for line in read_log(run.training / "log.jsonl"):
        rates = {key: value for key, value in line.items() if key.startswith("learning_rate/")}
        assert rates.keys() == {"learning_rate/projector", "learning_rate/language_model"}
        assert rates["learning_rate/projector"] == pytest.approx(
            rates["learning_rate/language_model"] / 2
        )
        assert line["learning_rate"] in rates.values()
        assert all(math.isfinite(rate) for rate in rates.values())


def test_what_the_schedule_saves_is_evaluated_and_nothing_else_is_the_best():
    best, state = BestOfSaved(), TrainerState(global_step=3, epoch=1.0)
    arguments: Any = SimpleNamespace(
        load_best_model_at_end=True, save_strategy=SaveStrategy.STEPS, eval_delay=0
    )
    control = TrainerControl(should_save=True)
    best.on_step_end(arguments, state, control)
    assert control.should_evaluate
    assert best.counts(arguments)
    control = TrainerControl(should_evaluate=True)
    best.on_step_end(arguments, state, control)
    control.should_save = True  # somebody asks to end
    assert not best.counts(arguments)
    arguments.load_best_model_at_end = False  # a schedule that follows the loss has a metric, too
    best.on_step_end(arguments, state, TrainerControl(should_save=True))
    assert not best.counts(arguments)
    arguments.load_best_model_at_end = True
    arguments.eval_delay = 4
    control = TrainerControl(should_save=True)
    best.on_epoch_end(arguments, state, control)
    assert not control.should_evaluate
    arguments.save_strategy = SaveStrategy.BEST
    best.on_step_end(arguments, state, TrainerControl())
    assert best.counts(arguments)


def measure(monkeypatch, *losses):
    """What held-out records are said to lose, evaluation by evaluation."""
    measured = iter(losses)
    monkeypatch.setattr(MeanLoss, "read", lambda *_: next(measured))


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_best_checkpoint_is_kept_and_becomes_the_model(make_run, tuning, monkeypatch):
    """What is learnt is lost again after the second step, by the losses that are measured.

    The first and the fifth, which are lower, have no checkpoint.
    """
    measure(monkeypatch, 1.0, 2.0, 2.5, 2.1, 1.5, 2.2)
    hf = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 2,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "learning_rate": 0.01,
    }
    config, run = make_run(tuning=tuning, validation=0.3, hf=hf)
    train(config, run)
    log = read_log(run.training / "log.jsonl")
    assert [line["eval_loss"] for line in log if "eval_loss" in line] == [1, 2, 2.5, 2.1, 1.5, 2.2]
    final, kept = run.training / "final", run.training / "checkpoint-2"
    saved, expected = weights(final), weights(kept)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)
    outputs = read_json(run.training / "stage.json")["outputs"]
    assert (outputs["num_steps"], outputs["held_out_loss"]) == (6, 2.0)
    losses = {line["step"]: line["loss"] for line in log if "loss" in line}
    assert outputs["final_loss"] == losses[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "hf", [{"lr_scheduler_type": "reduce_lr_on_plateau"}, {"metric_for_best_model": "eval_loss"}]
)
def test_a_metric_without_a_best_model_keeps_the_last(make_run, monkeypatch, hf):
    measure(monkeypatch, 1.0, 2.0, 2.5)
    hf = {"eval_steps": 2, "save_steps": 2, "save_total_limit": 1, "warmup_steps": 0, **hf}
    config, run = make_run(validation=0.3, hf=hf)
    train(config, run)
    assert [path.name for path in run.training.glob("checkpoint-*")] == ["checkpoint-6"]
    outputs = read_json(run.training / "stage.json")["outputs"]
    assert (outputs["num_steps"], outputs["held_out_loss"]) == (6, 2.5)


BEST = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "best",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "learning_rate": 0.01,
    "logging_steps": 5,
}


@pytest.mark.slow
def test_what_is_saved_for_its_loss_is_logged_whatever_the_interval(make_run, monkeypatch):
    measure(monkeypatch, 1.0, 2.0, 2.5)
    config, run = make_run(validation=0.3, hf=BEST)
    train(config, run)
    saved = [path.name for path in run.training.glob("checkpoint-*")]
    assert saved == ["checkpoint-2"]
    outputs = read_json(run.training / "stage.json")["outputs"]
    log = read_log(run.training / "log.jsonl")
    losses = {line["step"]: line["loss"] for line in log if "loss" in line}
    assert outputs["held_out_loss"] == 1.0
    assert outputs["final_loss"] == losses[2]


@pytest.mark.slow
def test_the_best_is_saved_without_becoming_the_model(make_run, monkeypatch):
    measure(monkeypatch, 2.0, 1.0, 2.5)
    config, run = make_run(validation=0.3, hf={**BEST, "load_best_model_at_end": False})
    train(config, run)
    assert [path.name for path in run.training.glob("checkpoint-*")] == ["checkpoint-4"]
    outputs = read_json(run.training / "stage.json")["outputs"]
    assert (outputs["num_steps"], outputs["held_out_loss"]) == (6, 2.5)


@pytest.mark.slow
def test_asked_to_end_a_training_that_saves_the_best_saves_any(make_run, monkeypatch):
    """Each step is evaluated, and none after the first is the best."""
    measure(monkeypatch, 1.0, 2.0, 2.5)
    monkeypatch.setattr(callbacks, "asked_to_end", lambda: signal.SIGTERM)
    config, run = make_run(validation=0.3, hf={**BEST, "eval_steps": 1})
    original = callbacks.StopWhenAsked.on_step_end

    def from_the_second_step(self, args, state, control, **options):
        if state.global_step > 1:
            original(self, args, state, control, **options)

    monkeypatch.setattr(callbacks.StopWhenAsked, "on_step_end", from_the_second_step)
    with pytest.raises(Interrupted):
        train(config, run)
    saved = sorted(path.name for path in run.training.glob("checkpoint-*"))
    assert saved == ["checkpoint-1", "checkpoint-2"]


def end_behind_the_last_checkpoint(patch):
    """As a kill would, before the best one is loaded."""

    def die(*_):
        raise KeyboardInterrupt

    patch.setattr(TuningTrainer, "_load_best_model", die)


@pytest.mark.slow
@pytest.mark.parametrize("is_left", [True, False])
def test_the_best_is_found_where_the_run_folder_was_moved(make_run, monkeypatch, caplog, is_left):
    measure(monkeypatch, 1.0, 2.0, 2.5)
    hf = {**BEST, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    config, run = make_run(validation=0.3, hf=hf)
    with monkeypatch.context() as patch:
        end_behind_the_last_checkpoint(patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
    moved = run.root.rename(run.root.with_name("moved"))
    config, run = config.model_copy(update={"name": "moved"}), RunDir(moved)
    best = moved / "training" / "checkpoint-2"
    if not is_left:
        best.rename(moved / "elsewhere")
        with pytest.raises(UserError, match=rf"^{best}: gone; .* the lowest so far"):
            train(config, run)
        return
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # to caplog
    train(config, run)
    saved, expected = weights(run.checkpoint), weights(best)
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    assert read_json(run.training / "stage.json")["outputs"]["held_out_loss"] == 1.0
    assert "recorded in the resumed state" not in caplog.text
