"""The plan of a table: which runs, what is done, and what the rest will take."""

from __future__ import annotations

import pytest
from prism_tune.results.estimates import PoolSize, estimate_run, measure_pool
from prism_tune.results.plan import PLANS, find_missing, make_plan
from prism_tune.results.plan_table import build_plan_table
from prism_tune.results.shapes import ASSUMED_SHAPES, Shape, find_shape
from safetensors.torch import load_file

from prism_tune.config.load import load_config, render_config
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.results.render import render
from prism_tune.run.folder import RunDir, write_atomic, write_json
from prism_tune.run.stage import Stage

SHAPE = Shape(
    num_layers=10,
    layers=1000,
    embeddings=200,
    vision=50,
    projector=20,
    width=8,
    num_image_tokens=4,
)
POOL = PoolSize(num_records=100, num_image_records=80, num_images=40, num_bytes=3000)
"""6 tokens of text a record: 30 bytes, of which 24 are text."""


def config(*overrides: str) -> Config:
    tree = {
        "name": "x",
        "model": {"path": "m"},
        "data": {"records": "p.json"},
        "training": {"tuning": "full"},
    }
    loaded = Config.model_validate(tree)
    updates = [override.split("=") for override in overrides]
    for key, value in updates:
        section, field = key.split(".")
        changed = {field: int(value) if value.isdecimal() else value}
        part = getattr(loaded, section).model_copy(update=changed)
        loaded = loaded.model_copy(update={section: part})
    return loaded


def test_a_models_shape_is_read_from_its_checkpoint(tiny_llava_dir):
    shape, is_read = find_shape(str(tiny_llava_dir))
    tensors = load_file(tiny_llava_dir / "model.safetensors")
    assert is_read
    assert shape is not None
    assert (shape.num_layers, shape.width, shape.num_image_tokens) == (4, 32, 4)
    vision = sum(t.numel() for name, t in tensors.items() if "vision_tower" in name)
    layers = sum(
        t.numel() for name, t in tensors.items() if "layers." in name and "vision" not in name
    )
    assert (shape.vision, shape.layers) == (vision, layers)
    assert shape.projector == 24 * 32 + 32 + 32 * 32 + 32
    assert shape.total == sum(t.numel() for t in tensors.values()) - 32  # the final norm


def test_a_model_that_is_not_there_is_assumed_or_unknown():
    assert find_shape("data/models/llava-1.5-7b-pretrain")[1] is False
    assert find_shape("somebody/else") == (None, False)


@pytest.mark.parametrize(
    ("path", "billions"),
    [
        ("data/models/llava-1.5-7b-pretrain", 7.06),
        ("data/models/llava-1.5-13b-pretrain", 13.35),
        ("runs/phi2_3b_align/training/final", 3.09),
        ("runs/qwen25_7b_base_align/training/final", 7.93),
        ("runs/llama3_8b_align/training/final", 8.36),
        ("data/quickstart/model", 0.157),
    ],
)
def test_assumed_shapes_have_the_published_sizes(path, billions):
    """Decoder as published (6.74, 13.02, 2.78, 7.62, 8.03, 0.135), CLIP 0.30, projector 0.02."""
    assert ASSUMED_SHAPES[path].total / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "flops"),
    [
        ((), 2 * 40 * (100 * 4 + 50 * 4)),  # each distinct image, through one layer of ten
        (("selection.layer=5",), 2 * 40 * (500 * 4 + 50 * 4)),
        (("selection.features=joint",), 2 * 80 * (100 * 10 + 50 * 4)),
        (("selection.scorer=alignment",), 2 * 80 * (100 * 10 + 50 * 4)),
        (("selection.scorer=perplexity",), 2 * 80 * (1000 * 10 + 50 * 4)),
        (("selection.scorer=random",), 0),
        (("training.records=pool",), 0),
        (("training.tuning=none",), 0),
    ],
)
def test_flops_of_selecting(overrides, flops):
    assert estimate_run(config(*overrides), SHAPE, POOL).select_flops == flops


def test_flops_of_tuning():
    """Half of 80 image records and all 20 others: 40 x 4 + 60 x 6 tokens; forward of 40 images."""
    subset = estimate_run(config("selection.budget=40"), SHAPE, POOL).tune_flops
    assert subset == (4 * 1000 + 2 * 1020) * (40 * 4 + 60 * 6) + 2 * 50 * 4 * 40
    whole = estimate_run(config("training.records=pool"), SHAPE, POOL).tune_flops
    assert whole == (4 * 1000 + 2 * 1020) * (80 * 4 + 100 * 6) + 2 * 50 * 4 * 80
    projector = estimate_run(
        config("training.records=pool", "training.tuning=projector"), SHAPE, POOL
    ).tune_flops
    assert projector == (4 * 1000 + 2 * 20) * (80 * 4 + 100 * 6) + 2 * 50 * 4 * 80


def test_a_pool_is_measured_where_it_is(drawn_pool):
    data = {"records": str(drawn_pool)}
    measured = measure_pool(config().model_copy(update={"data": _data(data)}))
    assert measured == PoolSize(26, 24, 16, drawn_pool.stat().st_size, is_measured=True)
    assert measure_pool(config()) is None


def _data(values):
    return Config.model_validate({"name": "x", "model": {"path": "m"}, "data": values}).data


@pytest.mark.parametrize("name", PLANS)
def test_every_preset_of_a_plan_exists(name, repository):
    plan = make_plan(name, [0, 1])
    assert len(plan.runs) >= 4
    assert {run.config.seed for run in plan.runs} == {0, 1}
    assert all(plan.tables.values())
    assert build_plan_table(plan, None).rows


def test_every_paper_preset_is_in_a_plan(repository):
    planned = {run.path for name in PLANS for run in make_plan(name, [0]).runs}
    folder = repository / "configs/experiments"
    presets = {*folder.glob("paper/*/*.yaml"), *folder.glob("quickstart_tables/*.yaml")}
    assert {path.relative_to(repository) for path in presets} == planned


def test_what_others_start_from_comes_first(repository):
    plan = make_plan("models", [0], ["phi2*"])
    assert [run.config.name for run in plan.alignments] == ["phi2_3b_align"]
    steps = [step for step in plan.steps() if step[0] == "stage"]
    assert steps[0] == (
        "stage",
        "runs/phi2_3b_align",
        "train",
        "configs/experiments/phi2_3b_align.yaml",
    )
    assert len(steps) == 1 + 2 + 3 + 3
    missing = find_missing(plan)
    assert "data/models/phi-2-clip" in missing
    assert "runs/phi2_3b_align/training/final" not in missing


def test_language_questions_go_to_the_runs_of_the_other_tables(repository):
    preset = "configs/experiments/paper/main/prism_7b_full.yaml"
    config = load_config(preset, ["name=prism_7b_full-seed0", "seed=0"])
    run = RunDir(repository / "runs" / config.name)
    write_atomic(run.config, render_config(config))
    for folder in (run.selection, run.training, *(run.benchmark(n) for n in ("pope", "mme"))):
        Stage(folder).finish({})
    plan = make_plan("language", [0], ["prism_7b*"])
    assert plan.runs[0].remaining == ("evaluate",)
    for name in ("mmlu", "mmlu_pro", "hellaswag"):
        Stage(run.benchmark(name)).finish({})
    assert make_plan("language", [0], ["prism_7b*"]).runs[0].remaining == ()


def test_hours_are_by_the_rate_that_the_runs_so_far_have_measured(repository):
    plan = make_plan("quickstart", [0], ["*_prism"])
    assumed = build_plan_table(plan, None)
    entry = {"stage": "training", "device_seconds": 10.0, "counts": {"flops": 10 * 17e12}}
    write_json(plan.runs[0].run.timings, [entry])
    measured = build_plan_table(plan, None)
    tune = assumed.header.index("tune, h")
    assert measured.rows[0][tune].value == pytest.approx(assumed.rows[0][tune].value / 100)
    assert "at 17 TFLOP/s a device (measured on the runs so far)" in render(measured, "md")
    assert "at 2 TFLOP/s a device (as given)" in render(build_plan_table(plan, 2.0), "md")


def test_refusals(repository, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no table 'mian'; there are main, main_lora"):
        make_plan("mian", [0])
    with pytest.raises(ConfigError, match="plan main: no row is called a or b"):
        make_plan("main", [0], ["a", "b"])
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(UserError, match="call this in the repository"):
        make_plan("main", [0])
