"""What the thin Trainer adds: logits only where there is a label, watching the loss."""

from __future__ import annotations

import logging

import pytest
import torch

from prism_tune.config.sections import ModelConfig
from prism_tune.data.labels import select_labelled
from prism_tune.models.load import load_model
from prism_tune.training.loss_watch import LossWatch
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow  # seconds each


def test_selected_positions_are_those_before_a_label():
    labels_BL = torch.tensor([[-100, -100, 7, 8], [-100, 5, -100, 6]])
    keep_BL, labels_K = select_labelled(labels_BL)
    assert keep_BL.tolist() == [[False, True, True, False], [True, False, True, False]]
    assert labels_K.tolist() == [7, 8, 5, 6]


def test_selecting_changes_neither_loss_nor_gradients(tiny_llava_dir):
    torch.manual_seed(0)
    model = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)
    input_ids = torch.randint(6, 300, (3, 12))
    input_ids[:, :4] = 3
    labels = torch.where(torch.rand(3, 12) < 0.4, input_ids, -100)
    labels[2] = -100  # a record may have none
    batch = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": torch.randn(3, 3, 28, 28),
        "labels": labels,
        "num_items_in_batch": (labels[:, 1:] != -100).sum(),
    }
    results = []
    keep, selected = select_labelled(labels)
    for extra in ({}, {"logits_to_keep": keep, "shift_labels": selected}):
        model.zero_grad()
        loss = model(**batch, **extra).loss
        loss.backward()
        results.append((loss, {n: p.grad for n, p in model.named_parameters()}))
    (plain_loss, plain), (loss, selected) = results
    torch.testing.assert_close(loss, plain_loss)
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(selected[name], gradient, rtol=1e-4, atol=1e-6)


def test_training_computes_logits_only_at_labels(make_run, monkeypatch):
    from prism_tune.training.train import train

    seen = []
    forward = torch.nn.Linear.forward

    def count(self, values):
        if self.out_features > 300:
            seen.append(tuple(values.shape))
        return forward(self, values)

    monkeypatch.setattr(torch.nn.Linear, "forward", count)
    monkeypatch.setattr(TuningTrainer, "_check_model", lambda *_: None)  # takes batches of its own
    config, run = make_run(hf={"max_steps": 2, "save_strategy": "no"})
    train(config, run)
    # Two records a step, each answer of 3 to 7 tokens with its end token, of some 170 tokens.
    assert len(seen) == 2
    assert all(len(shape) == 2 and shape[0] < 30 for shape in seen)


def test_a_constant_loss_is_pointed_out_once(caplog):
    caplog.set_level(logging.WARNING, logger="prism_tune")

    watch = LossWatch()
    for loss in [2.0, *[1.5] * 19]:
        watch.add(20, loss)
    assert not caplog.messages
    watch.add(21, 1.5)
    assert len(caplog.messages) == 1
    assert "the loss has been exactly 1.5 for 20 log lines: nothing is learnt" in caplog.text
    watch.add(22, 1.5)
    assert len(caplog.messages) == 1


def test_packed_rows_fill_every_step_and_resume_exactly(make_run, monkeypatch):
    from prism_tune.run.written import read_log
    from prism_tune.training.source_losses import SourcedCollator
    from prism_tune.training.train import train

    seen = []
    collate = SourcedCollator.__call__

    def record(self, examples):
        batch = collate(self, examples)
        seen.append((len(examples), batch["input_ids"].numel()))
        return batch

    monkeypatch.setattr(SourcedCollator, "__call__", record)
    monkeypatch.setattr(TuningTrainer, "_check_model", lambda *_: None)  # takes batches of its own
    options = {"batching": "packed", "tokens_per_batch": 1000}
    hf = {"max_steps": -1, "num_train_epochs": 2, "save_steps": 3}
    config, whole = make_run("whole", **options, hf=hf)
    train(config, whole)
    losses = [line["loss"] for line in read_log(whole.training / "log.jsonl")]
    assert sum(records for records, _ in seen) == 2 * 26  # two epochs over the pool's 26 records
    assert max(tokens for _, tokens in seen) <= 1000
    assert len(seen) == len(losses) == 12

    class Killed(BaseException):
        pass

    log = TuningTrainer.log

    def log_then_stop(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == 8:
            raise Killed

    config, parted = make_run("parted", **options, hf=hf)
    with monkeypatch.context() as patch:
        patch.setattr(TuningTrainer, "log", log_then_stop)
        with pytest.raises(Killed):
            train(config, parted)
    train(config, parted)
    assert [line["loss"] for line in read_log(parted.training / "log.jsonl")] == losses


def test_the_loss_of_each_source_is_logged(make_run):
    from prism_tune.run.written import read_log
    from prism_tune.training.train import train

    hf = {"per_device_train_batch_size": 26, "max_steps": 2, "save_strategy": "no"}
    config, run = make_run(batching="random", hf=hf, lora={"r": 4, "lora_dropout": 0.0})
    train(config, run)
    line, _ = read_log(run.training / "log.jsonl")
    by_source = {key: value for key, value in line.items() if key.startswith("loss/")}
    assert set(by_source) == {"loss/shape", "loss/colour", "loss/text"}
    assert min(by_source.values()) < line["loss"] < max(by_source.values())


def test_losses_are_summed_over_the_labels_of_each_source():
    from accelerate import Accelerator

    from prism_tune.training.source_losses import SourceLosses

    losses = SourceLosses(["a", "b", "unseen"])
    losses.add(torch.tensor([0, 1, 0]), torch.tensor([1.0, 3.0, 2.0]))
    losses.add(torch.tensor([0]), torch.tensor([6.0]))
    expected = {"loss/a": 3.0, "loss/b": 3.0}
    accelerator = Accelerator(cpu=True)
    assert losses.read(accelerator) == expected
    assert losses.read(accelerator) == {}


def test_losses_are_those_of_plain_transformers_on_the_same_batches(make_run):
    """Two batches a step; the plain trainer computes all logits, and its model the loss."""
    from transformers import Trainer

    from prism_tune.data.collator import Collator
    from prism_tune.models.processor import load_processor
    from prism_tune.models.tuning import prepare_tuning
    from prism_tune.run.written import read_log
    from prism_tune.training.arguments import training_arguments
    from prism_tune.training.examples import build_examples
    from prism_tune.training.train import train

    hf = {"max_steps": 4, "save_strategy": "no", "gradient_accumulation_steps": 2}
    config, run = make_run(tuning="full", batching="random", hf=hf)
    train(config, run)
    ours = [line["loss"] for line in read_log(run.training / "log.jsonl")]

    cpu = torch.device("cpu")
    processor = load_processor(config.model)
    base = load_model(config.model, dtype=torch.float32)
    plain = Trainer(
        model=prepare_tuning(base, config.training, weights_dtype=torch.float32),
        args=training_arguments(config, run, device=cpu, dtype=torch.float32),
        train_dataset=build_examples(config, run, processor).trained,
        data_collator=Collator(processor),
    )
    plain.train()
    theirs = [line["loss"] for line in plain.state.log_history if "loss" in line]
    assert ours == pytest.approx(theirs, rel=1e-5)
