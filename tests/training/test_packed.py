"""Training on packed rows against training on the same records in padded batches."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from support.ranks import Ranks

from prism_tune.data.collator import Collator, PackingCollator
from prism_tune.errors import ConfigError
from prism_tune.run.timings import read_timings
from prism_tune.run.written import read_log
from prism_tune.training import batches, trainer
from prism_tune.training.inputs import stage_inputs
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
EPOCHS = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "no"}


def losses(run):
    return [line["loss"] for line in read_log(run.training / "log.jsonl")]


def weights(run):
    return {
        name: tensor
        for path in run.checkpoint.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


class Padded:
    """In place of `Packing`: the model attends as it always does."""

    def __init__(self, model):
        pass

    def arguments(self, inputs):
        return inputs


@pytest.mark.parametrize(("tuning", "attention"), [("lora", "sdpa"), ("full", "eager")])
def test_rows_train_what_padded_batches_of_the_same_records_do(
    make_run, mixed_pool, monkeypatch, tuning, attention
):
    """Two rows a step, of unequal numbers of labels: each label token weighs the same."""
    options = {
        "file": mixed_pool,
        "tuning": tuning,
        "lora": LORA,
        "tokens_per_batch": 500,
        "model": {"attn_implementation": attention},
        "hf": {**EPOCHS, "gradient_accumulation_steps": 2},
    }
    config, packed = make_run("packed", batching="packed", **options)
    train(config, packed)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "PackingCollator", Collator)
        patch.setattr(trainer, "Packing", Padded)
        config, padded = make_run("padded", batching="packed", **options)
        train(config, padded)
    assert len(losses(packed)) >= 4
    assert losses(packed) == pytest.approx(losses(padded), rel=1e-4)
    expected, got = weights(padded), weights(packed)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-2, atol=2e-4)
    counts = [read_timings(run)[0]["counts"] for run in (packed, padded)]
    assert counts[0] == counts[1]  # records, images and tokens, as the meter counted them
    assert counts[0]["records"] == 2 * 16


def test_an_epoch_takes_every_record_once_in_rows_within_the_budget(make_run, monkeypatch):
    rows = []
    collate = PackingCollator.__call__

    def note(self, examples):
        rows.append([(e["input_ids"].tolist(), len(e.get("pixel_values", ()))) for e in examples])
        batch = collate(self, examples)
        assert batch["input_ids"].shape[0] == 1
        return batch

    monkeypatch.setattr(PackingCollator, "__call__", note)
    monkeypatch.setattr(TuningTrainer, "_check_model", lambda *_: None)  # takes batches of its own
    config, run = make_run(batching="packed", tokens_per_batch=700, hf=EPOCHS)
    train(config, run)
    assert len(rows) == len(losses(run))
    assert max(sum(len(ids) for ids, _ in row) for row in rows) <= 700
    assert any(len({images for _, images in row}) == 2 for row in rows)  # text beside images
    half = len(rows) // 2
    epochs = [[record for row in part for record in row] for part in (rows[:half], rows[half:])]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len(epochs[0]) == 26


def two_rows(directory):
    """A record with an image and a longer one of text: of two processes one never has an image."""
    answer = "yes, because " + "so it goes and " * 20
    records = [
        {"id": "image", "image": "3.png", "conversations": [("what is it? " * 9, "a square")]},
        {"id": "text", "conversations": [("is it even?", answer)]},
    ]
    for record in records:
        ((question, reply),) = record["conversations"]
        question = f"<image>\n{question}" if "image" in record else question
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]
        record.update(source=record["id"], conversations=turns)
    path = directory / "two.json"
    path.write_text(json.dumps(records))
    return path


FOUR_EPOCHS = {**EPOCHS, "num_train_epochs": 4}


@pytest.fixture(scope="module")
def on_one(make_shared_run, tmp_path_factory):
    """Two rows a step on one process: the run, and the options of what has to equal it."""
    file = two_rows(tmp_path_factory.mktemp("two_rows"))
    options = {"file": file, "batching": "packed", "tokens_per_batch": 256, "tuning": "full"}
    hf = {**FOUR_EPOCHS, "gradient_accumulation_steps": 2}
    config, run = make_shared_run("one", **options, hf=hf)
    train(config, run)
    return run, options


@pytest.mark.parametrize("stage", [None, 2, 3])
def test_a_row_on_each_of_two_processes_equals_two_rows_on_one(
    on_one, make_run, deepspeed_file, tmp_path, stage
):
    one, options = on_one
    deepspeed = None if stage is None else deepspeed_file(stage)
    _, two = make_run("two", **options, hf=FOUR_EPOCHS, deepspeed=deepspeed)
    arguments = ["train", str(two.root / "experiment.yaml")]
    Ranks(arguments, tmp_path / "output.txt", num_processes=2).succeed()
    assert len(losses(two)) == 4
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)


def test_families_that_average_over_a_batch_still_weigh_every_label_alike(
    make_run, mixed_pool, monkeypatch
):
    """Qwen2.5-VL says of itself that it does not divide by the labels of the whole step."""
    from transformers import LlavaForConditionalGeneration

    monkeypatch.setattr(LlavaForConditionalGeneration, "accepts_loss_kwargs", False, raising=False)
    options = {"file": mixed_pool, "batching": "random", "lora": LORA}
    hf = {"max_steps": 4, "save_strategy": "no"}
    config, whole = make_run("whole", **options, hf={**hf, "per_device_train_batch_size": 4})
    train(config, whole)
    config, parts = make_run("parts", **options, hf={**hf, "gradient_accumulation_steps": 2})
    train(config, parts)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


def test_a_model_that_cannot_be_packed_is_refused_before_the_first_step(make_run, monkeypatch):
    monkeypatch.setattr("prism_tune.models.packing.PACKED_FAMILIES", ("llava_next",))
    config, run = make_run(batching="packed")
    with pytest.raises(ConfigError, match=r"packed is not possible for the family 'llava'"):
        train(config, run)
    assert not (run.training / "log.jsonl").exists()


def test_a_finished_run_minds_the_budget_only_where_batches_count_tokens(make_run):
    for batching, minds in [("packed", True), ("random", False)]:
        inputs = [
            stage_inputs(*make_run(batching=batching, tokens_per_batch=tokens))
            for tokens in (500, 600)
        ]
        assert (inputs[0] != inputs[1]) is minds
