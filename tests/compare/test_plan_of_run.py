"""What the verbs `plan` and `status` say of a real run folder: what would run again, and why."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.cli.stages import audit, select
from prism_tune.compare.memory import select_memory, tune_memory
from prism_tune.compare.selection_estimates import reads_gradients
from prism_tune.compare.shapes import PoolSize, Shape
from prism_tune.config.sections import Config, SelectionConfig
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir
from prism_tune.run.writer import only_writer

SHAPE = Shape(10, 1000, 200, 50, 20, 8, 4, 12)


@pytest.fixture(scope="module")
def run(tiny_llava_dir, drawn_pool, tmp_path_factory):
    """A run that has been audited and has selected; its config file."""
    root = tmp_path_factory.mktemp("planned")
    path = root / "run.yaml"
    path.write_text(
        f"""
name: run
output_dir: {root / "runs"}
model: {{path: {tiny_llava_dir}, template: vicuna_v1}}
data: {{records: {drawn_pool}, image_dir: {drawn_pool.parent / "images"}, num_workers: 0}}
selection: {{scorer: random, budget: 0.5}}
training: {{deepspeed: null, hf: {{use_cpu: true}}}}
"""
    )
    audit(path)
    select(path)
    return path


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.exception
    return " ".join(result.stdout.split())


def test_a_plan_names_the_key_that_makes_a_stage_run_again(run):
    assert "would run again" not in call("plan", run)
    assert "| run | train |" in call("plan", run)
    told = call("plan", run, "selection.budget=0.25", "seed=3")
    assert "| run | select, train |" in told
    assert "select has finished and would run again: seed, selection.budget." in told
    told = call("plan", run, f"data.records={run.parent / 'gone.json'}")
    assert "would run again: cannot be looked at:" in told
    assert "gone.json: no such file" in told


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("training.hf.learnin_rate=1", "did you mean `learning_rate`"),
        ("training.lora.rank=4", "training.lora"),
        ("training.deepspeed=nowhere.json", "nowhere.json"),
    ],
)
def test_a_plan_says_what_the_training_would_be_refused_for(run, override, reason):
    result = CliRunner().invoke(app, ["plan", str(run), override])
    assert isinstance(result.exception, UserError)
    assert reason in str(result.exception)
    assert "| run | train |" in " ".join(result.stdout.split())


def test_a_plan_knows_the_lengths_that_an_audit_has_counted(run, drawn_pool):
    assert "lengths as the audit has counted them" in call("plan", run)
    not_counted = "text counts as 4 characters a token until `prism-tune audit` has counted"
    assert not_counted in call("plan", run, "name=other")
    grid = (
        "compare={selectors: [random, length], budgets: [0.5], seeds: [0], metrics: [pope.f1]}",
        "evaluation.benchmarks=[pope]",
    )
    assert "lengths as the audit has counted them" in call("plan", run, *grid)  # of the grid
    copy = run.parent / "copy.json"
    shutil.copy(drawn_pool, copy)
    assert not_counted in call("plan", run, *grid, f"data.records={copy}")  # not of this pool


@pytest.mark.parametrize(("visible", "assumed"), [("0", "an A100"), ("", "no GPU, two cores")])
def test_the_speed_is_that_of_a_gpu_where_one_may_be_used(run, visible, assumed, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert f"(assumed: {assumed};" in call("plan", run)


def test_status_shows_runs_and_who_is_at_work(run):
    runs = run.parent / "runs"
    told = call("status", runs)
    assert "| run | finished | ok | 14 / 26 | - | - |" in told
    with only_writer(RunDir(runs / "run")):
        assert "| run | at work: process " in call("status", runs / "run")
    with only_writer(
        RunDir(shutil.copytree(runs / "run" / "audit", runs / "run/cells/a/audit").parent)
    ):
        assert "| run | at work in 1 of 1 cells begun |" in call("status", runs)
    shutil.rmtree(runs / "run/cells")
    assert CliRunner().invoke(app, ["status", str(run.parent / "none")]).exception is not None


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("timings.json", "no JSON", "timings.json: not valid JSON"),
        ("selection/manifest.json", "[]", "manifest.json: not as it was written"),
        ("selection/manifest.json", '{"num_selected": []}', "manifest.json: not as it was written"),
        ("audit/stage.json", '{"outputs": 3}', "stage.json: not the record of a finished stage"),
        ("training/log.jsonl", "x\n", "log.jsonl: line 1: not as it was written"),
    ],
)
def test_status_lists_the_readable_beside_what_cannot_be_read(run, file, content, reason):
    """The damaged one comes first."""
    runs = run.parent / "runs"
    damaged = shutil.copytree(runs / "run", runs / "a-damaged")
    (damaged / file).parent.mkdir(exist_ok=True)
    (damaged / file).write_text(content)
    result = CliRunner().invoke(app, ["status", str(runs)])
    shutil.rmtree(damaged)
    told = " ".join(result.stdout.split())
    assert "| a-damaged | cannot be read | - | - | - | - | - | - |" in told
    assert "| run | finished | ok | 14 / 26 | - | - |" in told
    assert f"{damaged} cannot be read: " in told
    assert reason in told
    assert "2 runs, 0 at work" in told
    assert result.exit_code == 1


def config(**training):
    tree = {"name": "x", "model": {"path": "m"}, "data": {"records": "p"}, "training": training}
    return Config.model_validate(tree)


def test_memory_of_tuning():
    """16 bytes a trained weight, 2 a frozen one; 2 rows of 30 tokens at 10 layers and one more."""
    pool = PoolSize(100, 80, 40, 3000, longest=30)
    hf = {"per_device_train_batch_size": 2}
    activations = 60 * (8 * (10 * 34 + 34) + 12 * 10)
    whole = tune_memory(config(deepspeed=None, hf=hf), SHAPE, pool, 70, 1)
    assert whole == 1200 * 2 + 70 * 16 + activations
    checked = {**hf, "gradient_checkpointing": True}
    shared = tune_memory(config(deepspeed="preset:zero3", hf=checked), SHAPE, pool, 70, 4)
    assert shared == 1200 * 2 / 4 + 70 * 16 / 4 + 60 * (8 * (10 * 2 + 34) + 12 * 10)


def test_memory_of_gradients_is_of_two_layers_activations():
    """16,384 tokens, 34 bytes of each of the width's numbers in a layer."""
    forward = select_memory(config(), SHAPE, 1.0)
    back = select_memory(config(), SHAPE, 1.0, goes_back=True)
    assert back - forward == 16_384 * 34 * SHAPE.width
    assert reads_gradients(SelectionConfig(scorer="tive"))
    assert not reads_gradients(SelectionConfig(scorer="perplexity"))
