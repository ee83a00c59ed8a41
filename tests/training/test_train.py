"""The training stage on a tiny LLaVA: modes, reloading, exact resume, reruns, golden losses."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from prism_tune.errors import UserError
from prism_tune.models.checkpoint import load_tuned
from prism_tune.models.export import export
from prism_tune.models.families import parts
from prism_tune.models.load import load_model
from prism_tune.run.folder import read_json
from prism_tune.run.stage import Stage
from prism_tune.run.timings import read_timings
from prism_tune.run.written import read_log
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden" / "training_losses.json"
BATCH = {
    "input_ids": torch.tensor([[3, 3, 3, 3, 20, 21, 22]]),
    "pixel_values": torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28),
}


def losses(run):
    return [line["loss"] for line in read_log(run.training / "log.jsonl")]


def weights(directory):
    return {n: t for path in directory.glob("*.safetensors") for n, t in load_file(path).items()}


def logits(model):
    with torch.no_grad():
        return model.eval()(**BATCH).logits


def plain_reload(config, directory):
    """Without any code of ours."""
    if not (directory / "adapter_config.json").exists():
        return AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    base = AutoModelForImageTextToText.from_pretrained(config.model.path, dtype=torch.float32)
    return PeftModel.from_pretrained(base, directory)


@pytest.mark.parametrize("tuning", ["lora", "full", "projector"])
def test_a_tuned_checkpoint_is_self_contained(make_run, tmp_path, tuning):
    config, run = make_run(tuning=tuning, hf={"max_steps": 3})
    train(config, run)
    tuned = load_tuned(config, run.checkpoint, dtype=torch.float32, device=CPU)
    base = load_model(config.model, dtype=torch.float32)
    reloaded = plain_reload(config, run.checkpoint)
    torch.testing.assert_close(logits(tuned), logits(reloaded), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(tuned), logits(base), atol=1e-3)
    export(run.root, tmp_path / "exported")
    exported = plain_reload(config, tmp_path / "exported")
    torch.testing.assert_close(logits(exported), logits(reloaded), rtol=1e-4, atol=1e-4)

    frozen = {"lora": ["vision_tower"], "full": ["vision_tower"]}
    for part in frozen.get(tuning, ["vision_tower", "language_model"]):
        before = getattr(parts(base), part).state_dict()
        after = getattr(parts(tuned), part).state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)

    for directory in (run.checkpoint, run.training / "checkpoint-3"):
        processor = AutoProcessor.from_pretrained(directory, backend="pil")
        assert processor.chat_template
        assert (directory / "prism_tune.yaml").exists()
        assert not (directory / "training_args.bin").exists()


def interrupt(monkeypatch, *, at_step):
    """Stops training as a kill would: after the step was logged, with nothing cleaned up."""

    class Killed(BaseException):
        pass

    log = TuningTrainer.log

    def log_then_stop(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == at_step:
            raise Killed

    monkeypatch.setattr(TuningTrainer, "log", log_then_stop)
    return Killed


def test_a_resumed_run_equals_an_uninterrupted_one(make_run, monkeypatch):
    options = {"hf": {"save_steps": 2, "max_steps": 16}}  # into a second epoch
    config, whole = make_run("whole", **options)
    train(config, whole)

    config, parted = make_run("parted", **options)
    for step in (5, 14):
        with monkeypatch.context() as patch:
            killed = interrupt(patch, at_step=step)
            with pytest.raises(killed):
                train(config, parted)
    train(config, parted)

    assert len(losses(whole)) == 16
    assert losses(parted) == losses(whole)
    expected, got = weights(whole.checkpoint), weights(parted.checkpoint)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    attempts = read_timings(parted)
    assert [attempt["finished"] for attempt in attempts] == [False, False, True]
    # Steps 1-5, 5-14 and 13-16, two records each: what a kill lost is paid for twice.
    assert [attempt["counts"]["records"] for attempt in attempts] == [10, 20, 8]


def test_a_checkpoint_that_was_not_completed_is_not_resumed(make_run, monkeypatch):
    config, run = make_run()
    with monkeypatch.context() as patch:
        killed = interrupt(patch, at_step=5)
        with pytest.raises(killed):
            train(config, run)
    unfinished = run.training / "checkpoint-5"
    (run.training / "checkpoint-4").rename(unfinished)
    (unfinished / "complete.json").unlink()
    train(config, run)
    assert [line["step"] for line in read_log(run.training / "log.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert not unfinished.exists()


def test_another_number_of_processes_cannot_resume(make_run, monkeypatch):
    config, run = make_run()
    with monkeypatch.context() as patch:
        killed = interrupt(patch, at_step=3)
        with pytest.raises(killed):
            train(config, run)
    marker = run.training / "checkpoint-2" / "complete.json"
    marker.write_text(json.dumps({**read_json(marker), "num_processes": 8}))
    with pytest.raises(UserError, match=r"written by 8 processes, now there are 1.*--force"):
        train(config, run)


def test_a_finished_stage_is_skipped_until_what_it_reads_changes(make_run, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    config, run = make_run(hf={"max_steps": 2})
    train(config, run)
    first = (run.checkpoint / "adapter_model.safetensors").stat().st_mtime_ns
    outputs = read_json(run.training / "stage.json")["outputs"]
    assert outputs["num_records"] == 26
    assert outputs["num_steps"] == 2
    assert outputs["final_loss"] == losses(run)[-1]

    config, run = make_run(hf={"max_steps": 2, "save_steps": 1, "logging_steps": 1})
    train(config, run)
    assert (run.checkpoint / "adapter_model.safetensors").stat().st_mtime_ns == first
    assert "training: already finished with the same inputs, skipped" in caplog.messages

    config, run = make_run(hf={"max_steps": 3})
    with pytest.raises(UserError, match=r"training\.hf\.max_steps: 2 -> 3"):
        train(config, run)
    train(config, run, force=True)
    assert any(message.startswith("training: runs anew (--force)") for message in caplog.messages)
    assert len(losses(run)) == 3
    assert [path.name for path in run.training.glob("checkpoint-*")] == ["checkpoint-3"]
    assert len(read_timings(run)) == 1


def test_tuning_none_leaves_the_model_alone(make_run, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    config, run = make_run(tuning="none")
    train(config, run)
    assert not run.training.exists()
    assert "training: tuning is `none`, the model stays as it is" in caplog.messages


def test_the_subset_is_needed_before_training_on_it(make_run):
    config, run = make_run(records="subset")
    with pytest.raises(UserError, match="first run `prism-tune select CONFIG`"):
        train(config, run)


def test_one_step_of_warm_up_is_refused_before_it(make_run):
    config, run = make_run(hf={"max_steps": 1})
    with pytest.raises(UserError, match=r"only step has .* rate of 0, .*warmup_steps=0, or"):
        train(config, run)
    assert not run.checkpoint.exists()
    config, run = make_run(hf={"max_steps": 1, "warmup_steps": 0})
    train(config, run)
    assert run.checkpoint.exists()


def test_a_run_that_learns_nothing_is_an_error(make_run):
    config, run = make_run(hf={"max_steps": 2, "learning_rate": 1e-60})
    with pytest.raises(UserError, match="no trained parameter differs"):
        train(config, run)
    assert not run.checkpoint.exists()
    assert not (run.training / "stage.json").exists()


def test_answers_of_one_word_to_long_questions_are_learnt(make_run, drawn_pool, tmp_path):
    """Yes or no: of 400 tokens two have a label, and that says nothing of the template."""
    records = [r for r in json.loads(drawn_pool.read_text()) if "image" in r][:4]
    for number, record in enumerate(records):
        record["conversations"][0]["value"] = "<image>\n" + "is it a square? " * 80
        record["conversations"][1]["value"] = ["yes", "no"][number % 2]
    (tmp_path / "short.json").write_text(json.dumps(records))
    config, run = make_run(file=tmp_path / "short.json", hf={"max_steps": 3})
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_length": 2048})})
    train(config, run)
    assert Stage(run.training).require("train")["outputs"]["num_records"] == 4


def test_a_nan_stops_the_run_with_one_clear_line(make_run):
    options = {"learning_rate": 1e30, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    config, run = make_run(tuning="full", hf=options)
    with pytest.raises(UserError, match=r"step \d: the loss is (nan|inf); lower the learning rate"):
        train(config, run)


def test_the_progress_line_the_log_and_the_timings_tell_the_speed(make_run, capsys):
    config, run = make_run(hf={"max_steps": 2, "warmup_steps": 0, "lr_scheduler_type": "constant"})
    train(config, run)
    line = r"2/2 \[\d\d:\d\d<\d\d:\d\d,.* loss=[\d.]+, tokens/s=[\d.e+]+, images/s=[\d.e+]+\]"
    assert re.search(line, capsys.readouterr().err)
    for line in read_log(run.training / "log.jsonl"):
        assert line["tokens_per_second"] > 0
        assert line["learning_rate"] == 1e-3
    (attempt,) = read_timings(run)
    assert attempt["counts"]["records"] == 4
    assert attempt["counts"]["images"] <= 4
    # 4 per weight of the decoder (4 layers of 9,280, a norm of 32) and its adapters, 2 per trained.
    per_token = attempt["counts"]["flops"] / attempt["counts"]["tokens"]
    trained = weights(run.checkpoint)
    num_trained = sum(tensor.numel() for tensor in trained.values())
    num_adapter = sum(tensor.numel() for name, tensor in trained.items() if "lora_" in name)
    assert per_token == 4 * (37152 + num_adapter) + 2 * num_trained


def test_the_last_step_is_logged_and_metered_whatever_the_interval(make_run):
    config, run = make_run(hf={"max_steps": 3, "logging_steps": 10, "save_strategy": "no"})
    train(config, run)
    assert [line["step"] for line in read_log(run.training / "log.jsonl")] == [3]
    assert read_timings(run)[0]["counts"]["records"] == 6


@pytest.mark.parametrize("saving", [{"save_steps": 3}, {"save_strategy": "epoch"}])
def test_log_lines_over_several_steps_are_the_same_after_a_kill(make_run, monkeypatch, saving):
    """Each checkpoint ends a line, as what was summed up for the next one is not in it."""
    hf = {"per_device_train_batch_size": 9, "max_steps": 8, "logging_steps": 4, **saving}
    config, whole = make_run("whole", hf=hf)
    train(config, whole)
    config, parted = make_run("parted", hf=hf)
    with monkeypatch.context() as patch:
        killed = interrupt(patch, at_step=4)
        with pytest.raises(killed):
            train(config, parted)
    train(config, parted)
    assert [line["step"] for line in read_log(whole.training / "log.jsonl")] == [3, 4, 6, 8]
    assert losses(parted) == losses(whole)


def test_one_deepspeed_process_equals_plain_training(make_run, deepspeed_file):
    options = {"tuning": "full", "learning_rates": {"projector": 1e-3, "language_model": 1e-4}}
    config, plain = make_run("plain", **options)
    train(config, plain)
    config, zero2 = make_run("zero2", **options, deepspeed=deepspeed_file(2))
    before = dict(os.environ)
    train(config, zero2)
    assert dict(os.environ) == before
    assert losses(zero2) == pytest.approx(losses(plain), rel=1e-4)
    expected, got = weights(plain.checkpoint), weights(zero2.checkpoint)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_ten_steps_follow_the_golden_losses(make_run, tuning):
    """Regenerate with `make golden` after a change that is meant to change the numbers."""
    lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    config, run = make_run(tuning=tuning, lora=lora, hf={"max_steps": 10, "save_strategy": "no"})
    train(config, run)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("PRISM_TUNE_GOLDEN") == "write":
        golden[tuning] = losses(run)
        GOLDEN.write_text(json.dumps(golden, indent=2, sort_keys=True) + "\n")
    assert losses(run) == pytest.approx(golden[tuning], rel=1e-3), (
        "the first ten losses moved: if that is meant, run `make golden` and say why in the commit"
    )
