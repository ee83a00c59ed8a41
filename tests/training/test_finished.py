"""A finished training is lost to no mistake and no kill, only to another that has finished."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from support.training_runs import losses, weights

from prism_tune.errors import ConfigError, UserError
from prism_tune.run import replace as replacing
from prism_tune.run.folder import read_json
from prism_tune.run.timings import read_timings
from prism_tune.run.written import read_log
from prism_tune.training import finished
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

pytestmark = pytest.mark.slow

SHORT = {"max_steps": 2, "save_steps": 1}
LONGER = {"max_steps": 4, "save_steps": 1}


def contents(root: Path) -> dict[str, str]:
    """A digest of every file below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "experiment.yaml"  # rewritten by `make_run`
    }


def stop(monkeypatch, *, at_step, error=KeyboardInterrupt):
    """As Ctrl-C or a kill would, once the step is logged; without `error`, as Trainer would."""
    log = TuningTrainer.log

    def log_then_stop(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == at_step:
            if error is not None:
                raise error
            self.control.should_training_stop = True

    monkeypatch.setattr(TuningTrainer, "log", log_then_stop)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# What was asked, and the message without --force and with it.
ANEW = "holds a finished training of other inputs"
MISTAKES = [
    ({"hf": {**SHORT, "lerning_rate": 1e-4}}, "did you mean `learning_rate`", None),
    ({"hf": {**SHORT, "max_grad_norm": "oops"}}, "max_grad_norm = 'oops': Input should be", None),
    ({"hf": {**SHORT, "lr_scheduler_type": "wave"}}, "lr_scheduler_type = 'wave': Input", None),
    ({"hf": {**SHORT, "optim": "adman"}}, "optim = 'adman': Input should be", None),
    ({"hf": {**SHORT, "lr_scheduler_kwargs": {"nope": 1}}}, ANEW, r"training\.hf: .*nope"),
    ({"hf": {**SHORT, "eval_strategy": "steps"}}, "eval_strategy needs records to evaluate", None),
    ({"lora": {"rank": 4}}, "LoraConfig has no `rank`", None),
    ({"lora": {"r": "four"}}, "training.lora.r = 'four': Input should be a valid int", None),
    ({"tuning": "qlora"}, "qlora needs a CUDA device", None),
    ({"hf": {**SHORT, "per_device_train_batch_size": 0}}, "batch_size = 0: expected at", None),
    ({"hf": {**SHORT, "max_steps": 0}}, "max_steps = 0: expected at least 1, or -1", None),
    ({"hf": {**SHORT, "num_train_epochs": -1}}, "num_train_epochs = -1: expected more", None),
    (
        {"hf": {**SHORT, "learning_rate": 0.0}},
        "learning_rate = 0.0: expected a number above 0",
        None,
    ),
    ({"lora": {"r": 0}}, r"training\.lora\.r = 0: expected at least 1", None),
    ({"lora": {"target_modules": ["nonsense"]}}, ANEW, r"training\.lora: No modules were targeted"),
    ({"hf": {**SHORT, "optim": "adamw_bnb_8bit"}}, ANEW, "training.hf: .*bitsandbytes"),
    ({"deepspeed": "nowhere.json"}, "nowhere.json: no such file", None),
    ({"freeze": ["language_model", "vision_tower"]}, "LoRA adapts the language model", None),
    (
        {"model": {"path": "/nowhere/at/all"}},
        r"model\.path: /nowhere/at/all: no such directory",
        None,
    ),
    (
        {"model": {"path": "nowhere"}},
        r"model\.path: nowhere: no such directory \(a hub id would be OWNER/NAME\)",
        None,
    ),
    ({"file": Path("nowhere.json")}, "nowhere.json", None),
]


def test_no_mistake_touches_a_finished_training(make_run):
    config, run = make_run(hf=SHORT)
    train(config, run)
    before = contents(run.root)
    for options, message, forced in MISTAKES:
        config, _ = make_run(**{"hf": SHORT, **options})
        with pytest.raises(UserError, match=message):
            train(config, run)
        with pytest.raises(UserError, match=forced or message):
            train(config, run, force=True)
        assert contents(run.root) == before, options


def test_a_tracker_that_is_not_installed_is_a_mistake_in_the_config(make_run, monkeypatch):
    config, run = make_run(hf={**SHORT, "report_to": ["mlflow"]})
    complaints = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    with pytest.raises(ConfigError, match=r"training\.hf\.report_to: mlflow is not installed"):
        train(config, run)
    gc.collect()
    assert complaints == []
    assert not run.root.exists() or not run.training.exists()


@pytest.mark.parametrize(
    "options",
    [{"dataloader_num_workers": -1}, {"dataloader_persistent_workers": True}],
    ids=str,
)
def test_what_the_first_step_would_refuse_is_refused_before(make_run, options):
    config, run = make_run(hf={**SHORT, "dataloader_num_workers": 0, **options})
    with pytest.raises(ConfigError, match=r"training\.hf: .*worker"):
        train(config, run)
    assert not list(run.training.glob("*"))


def test_what_would_be_replaced_is_said_with_what_differs(make_run):
    config, run = make_run(hf=SHORT)
    train(config, run)
    before = contents(run.root)
    config, _ = make_run(hf={**SHORT, "learning_rate": 0.5, "weight_decay": 0.1})
    config = config.model_copy(update={"seed": 1})
    with pytest.raises(UserError) as caught:
        train(config, run)
    lines = str(caught.value).splitlines()
    assert "  seed: 0 -> 1" in lines
    assert "  training.hf.learning_rate: 0.001 -> 0.5" in lines
    assert "  training.hf.weight_decay: 0.0 (its default) -> 0.1" in lines
    assert "Another `name` trains beside it; --force replaces it" in lines[-1]
    assert contents(run.root) == before


def test_what_changes_nothing_learnt_leaves_it_finished(make_run, tiny_llava_dir, tmp_path, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    model = shutil.copytree(tiny_llava_dir, tmp_path / "model")
    config, run = make_run(hf=SHORT, model={"path": str(model)})
    train(config, run)
    before = contents(run.root)
    (model / "README.md").write_text("read me")
    quiet = {"log_level": "error", "ddp_timeout": 60, "save_steps": 7, "save_only_model": True}
    loading = {"dataloader_persistent_workers": True, "dataloader_num_workers": 1}
    usual = {"gradient_accumulation_steps": 1, "lr_scheduler_type": "cosine"}
    config, _ = make_run(
        hf={**SHORT, **quiet, **loading, **usual},
        model={"path": str(model)},
        lora={"r": 4, "lora_alpha": 8, "lora_dropout": 0.05},
    )
    train(config, run)
    assert "training: already finished with the same inputs, skipped" in caplog.messages
    assert contents(run.root) == before


def test_a_forced_training_replaces_only_once_it_has_finished(make_run, monkeypatch, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    config, whole = make_run("whole", hf=LONGER)
    train(config, whole)
    config, run = make_run(hf=SHORT)
    train(config, run)
    (run.training / "notes.txt").write_text("mine")
    shutil.copytree(run.training / "checkpoint-2", run.training / "checkpoint-2-copy")
    before, timings = contents(run.training), read_timings(run)

    config, _ = make_run(hf=LONGER)
    with monkeypatch.context() as patch:
        stop(patch, at_step=3)
        with pytest.raises(KeyboardInterrupt):
            train(config, run, force=True)
    assert contents(run.training) == before
    assert [e for e in read_timings(run) if e["stage"] == "training"] == timings

    train(config, run)  # the same command goes on: that it may replace has been said
    assert (
        f"training: goes on from {run.root / 'training.next' / 'checkpoint-2'}" in caplog.messages
    )
    assert losses(run) == losses(whole)
    assert same(weights(run.checkpoint), weights(whole.checkpoint))
    kept = sorted(path.name for path in run.training.glob("checkpoint-*"))
    assert kept == ["checkpoint-2-copy", "checkpoint-4"]
    assert (run.training / "notes.txt").read_text() == "mine"
    assert not list(run.root.glob("training.*"))
    attempts = read_timings(run)
    assert [entry["stage"] for entry in attempts] == ["training", "training"]
    assert [entry["finished"] for entry in attempts] == [False, True]
    train(config, run)
    assert "training: already finished with the same inputs, skipped" in caplog.messages


@pytest.fixture(scope="module")
def before_the_exchange(make_shared_run):
    """A finished training, and another behind its last step that shall replace it."""
    config, run = make_shared_run(hf=SHORT)
    train(config, run)
    (run.training / "notes.txt").write_text("mine")
    config, _ = make_shared_run(hf=LONGER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prism_tune.training.train.swap_in", lambda run: None)
        patch.setattr("prism_tune.training.train.barrier", lambda: None)
        train(config, run, force=True)
    return run


@pytest.mark.parametrize("moves", [1, 2, 3])
def test_a_kill_while_the_models_change_places_leaves_the_old_or_the_new(
    before_the_exchange, make_run, monkeypatch, caplog, moves
):
    """It comes before one of three moves: the old folder, the new one, a note."""
    caplog.set_level("INFO", logger="prism_tune")
    config, run = make_run(hf=LONGER)
    shutil.copytree(before_the_exchange.root, run.root, dirs_exist_ok=True)
    old = weights(run.checkpoint)
    replace, done = os.replace, []

    def replace_then_die(source, target):
        if Path(source).parent.parent == run.root or Path(source).parent == run.root:
            if len(done) == moves - 1:
                raise KeyboardInterrupt
            done.append(source)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_then_die)
        patch.setattr(replacing, "_exchange", lambda first, second: False)  # as on NFS
        with pytest.raises(KeyboardInterrupt):
            finished.swap_in(run)
    stage = run.training / "stage.json"
    if stage.exists():
        is_new = moves == 3
        assert read_json(stage)["outputs"]["num_steps"] == (4 if is_new else 2)
        assert same(weights(run.checkpoint), old) is not is_new
    train(config, run)
    assert "training: already finished with the same inputs, skipped" in caplog.messages
    assert read_json(stage)["outputs"]["num_steps"] == 4
    assert len(read_log(run.training / "log.jsonl")) == 4
    assert (run.training / "notes.txt").read_text() == "mine"
    assert not list(run.root.glob("training.*"))


def test_checkpoints_of_other_inputs_are_kept_as_well(make_run, monkeypatch):
    config, run = make_run(hf=LONGER)
    with monkeypatch.context() as patch:
        stop(patch, at_step=3)
        with pytest.raises(KeyboardInterrupt):
            train(config, run)
    before = contents(run.root)
    other, _ = make_run(hf={**LONGER, "learning_rate": 0.5})
    with pytest.raises(
        UserError, match=r"(?s)unfinished training \(checkpoint-2\).*0\.001 -> 0\.5"
    ):
        train(other, run)
    assert contents(run.root) == before
    train(other, run, force=True)
    assert read_json(run.training / "stage.json")["inputs"]["training.hf.learning_rate"] == 0.5


def test_a_training_that_stopped_early_has_not_finished(make_run, monkeypatch, caplog):
    caplog.set_level("INFO", logger="prism_tune")
    config, run = make_run(hf=LONGER)
    with monkeypatch.context() as patch:
        stop(patch, at_step=3, error=None)
        with pytest.raises(UserError, match=r"stopped at step 3 of 4.*goes on from .*checkpoint-3"):
            train(config, run)
    assert not run.checkpoint.exists()
    assert not (run.training / "stage.json").exists()
    assert read_timings(run)[-1]["finished"] is False
    train(config, run)
    assert f"training: goes on from {run.training / 'checkpoint-3'}" in caplog.messages
    assert read_json(run.training / "stage.json")["outputs"]["num_steps"] == 4


def test_options_that_trainer_refuses_are_config_errors(make_run):
    hf = {**SHORT, "save_strategy": "epoch", "eval_strategy": "steps"}
    config, run = make_run(hf={**hf, "load_best_model_at_end": True}, validation=0.3)
    with pytest.raises(ConfigError, match=r"training\.hf: .*save and eval strategy to match"):
        train(config, run)


def test_a_finished_model_that_lost_a_file_is_named_and_left(make_run):
    config, run = make_run(hf=SHORT)
    train(config, run)
    (run.checkpoint / "adapter_model.safetensors").unlink()
    before = contents(run.root)
    with pytest.raises(UserError, match=r"final/adapter_model.safetensors; restore them, or train"):
        train(config, run)
    assert contents(run.root) == before
    train(config, run, force=True)
    assert (run.checkpoint / "adapter_model.safetensors").exists()
