"""The plan of a table: which runs, what is done, and what the rest will take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.tiny_encoders import save_encoder

from prism_tune.cli.grid import find_grid
from prism_tune.cli.run import plan_steps
from prism_tune.compare.estimates import estimate_run
from prism_tune.compare.files import look_at_files_again
from prism_tune.compare.plan import BY_LM_EVAL, find_missing, make_plan
from prism_tune.compare.plan_table import build_plan_table
from prism_tune.compare.selection_estimates import evidence_bytes, reads_features
from prism_tune.compare.shapes import PoolSize, Shape, measure_pool, read_shape
from prism_tune.config.load import load_config
from prism_tune.config.sections import Config, SelectionConfig
from prism_tune.errors import ConfigError
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.results.render import render
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.stage import Stage
from prism_tune.selection.scorers import SCORERS

ROOT = Path(__file__).parents[2]
SHAPE = Shape(
    num_layers=10,
    layers=1000,
    embeddings=200,
    vision=50,
    projector=20,
    width=8,
    num_image_tokens=4,
    vocabulary=12,
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
    shape = read_shape(str(tiny_llava_dir))
    tensors = load_file(tiny_llava_dir / "model.safetensors")
    assert shape is not None
    assert (shape.num_layers, shape.width, shape.num_image_tokens) == (4, 32, 4)
    vision = sum(t.numel() for name, t in tensors.items() if "vision_tower" in name)
    layers = sum(
        t.numel() for name, t in tensors.items() if "layers." in name and "vision" not in name
    )
    assert (shape.vision, shape.layers) == (vision, layers)
    assert shape.projector == 24 * 32 + 32 + 32 * 32 + 32
    assert shape.total == sum(t.numel() for t in tensors.values()) - 32  # the final norm


def test_of_a_model_that_is_not_there_nothing_is_known():
    assert read_shape("data/models/llava-1.5-7b-pretrain") is None


@pytest.mark.parametrize(
    ("overrides", "flops"),
    [
        ((), 2 * 40 * (100 * 4 + 50 * 4)),  # each distinct image, through one layer of ten
        (("selection.layer=5",), 2 * 40 * (500 * 4 + 50 * 4)),
        (("selection.features=joint",), 2 * 80 * (100 * 10 + 50 * 4)),
        (("selection.scorer=alignment",), 2 * 80 * (100 * 10 + 50 * 4)),
        (("selection.scorer=perplexity",), 2 * 80 * (1000 * 10 + 50 * 4)),
        (("selection.scorer=visual_gain",), 2 * 80 * (1000 * (10 + 6) + 50 * 4)),
        (("selection.scorer=grand",), 2 * 80 * (3000 * 10 + 50 * 4)),
        (("selection.scorer=datatailor",), 2 * 80 * (1000 * 10 + 50 * 4)),
        (
            ("selection.scorer=datatailor", "selection.text_only=rank"),
            2 * (1000 * (80 * 4 + 100 * 6) + 80 * 50 * 4),
        ),
        (("selection.scorer=rds_plus",), 2 * 80 * (1000 * 10 + 50 * 4)),
        (("selection.scorer=coincide",), 2 * 80 * (27 / 32 * 1000 * 10 + 50 * 4)),
        (("selection.scorer=scalselect",), 2 * 80 * (100 * 10 + 50 * 4)),
        (("selection.scorer=clip_score",), 2 * 80 * 50 * 4),
        (("selection.features=text",), 0),
        (("selection.features=conversation",), 2 * 80 * (100 * 10 + 50 * 4)),
        (  # 5 % of the records, with and without their text
            ("selection.scorer=presel", "selection.scope=global"),
            2 * 40 * (100 * 4 + 50 * 4) + 2 * 4 * (1000 * (10 + 4) + 2 * 50 * 4),
        ),
        (("selection.scorer=random",), 0),
        (("training.records=pool",), 0),
        (("training.tuning=none",), 0),
    ],
)
def test_flops_of_selecting(overrides, flops):
    assert estimate_run(config(*overrides), SHAPE, POOL).select_flops == flops


SKETCHES = 2 * 80 * (2.1 * 1000 * 10 + 50 * 4)
RECORD = 4140 * 9.2 + 2 * 50 * 3.2
"""A warm-up's record: 3.2 tokens of image and 6 of text, 4 + 2 x 70 / 1000 of the layers."""


@pytest.mark.parametrize(
    ("selection", "flops"),
    [
        ({"scorer": "tive"}, 8 * RECORD + SKETCHES),
        ({"scorer": "less_heldout"}, 5 * RECORD + SKETCHES),
        ({"scorer": "tive", "reference": {}}, SKETCHES),
        ({"scorer": "random", "reference": {"warmup": {}}}, 0),
        (
            {"scorer": "perplexity", "reference": {"warmup": {"share": 0.5, "epochs": 2}}},
            100 * RECORD + 2 * 80 * (1000 * 10 + 50 * 4),
        ),
        (
            {
                "scorer": "tive",
                "reference": {"warmup": {"max_steps": 2, "batch_size": 3, "lora_rank": 64}},
            },
            6 * (RECORD - 50 * 9.2) + SKETCHES,
        ),
        ({"scorer": "el2n", "reference": {"model": "small"}}, None),
        (  # a tenth of the records, with and without their images
            {"scorer": "kernel_repulsion", "options": {"gamma": 2.0, "gain_share": 0.1}},
            2 * 40 * (100 * 4 + 50 * 4) + 2 * 8 * (1000 * (10 + 6) + 50 * 4),
        ),
    ],
)
def test_flops_of_selecting_with_a_reference(selection, flops):
    """Warm-ups count; of a small model that is not there yet, nothing is known."""
    asked = Config.model_validate(
        {"name": "x", "model": {"path": "m"}, "data": {"records": "p"}, "selection": selection}
    )
    found = estimate_run(asked, SHAPE, POOL).select_flops
    assert found == (None if flops is None else pytest.approx(flops))
    if flops is None:
        small = dataclasses.replace(SHAPE, layers=100, vision=5)
        known = estimate_run(asked, SHAPE, POOL, small).select_flops
        assert known == 2 * 80 * (100 * 10 + 5 * 4)


@pytest.mark.parametrize("scorer", ["clip_score", "self_filter_static"])
def test_the_vectors_of_images_and_texts_take_disk(scorer, tmp_path):
    """40 images and the texts of 80 records; of an encoder that is not here ViT-L/14's 768."""
    for family in ("clip", "siglip"):
        options = {"model": str(save_encoder(family, tmp_path / family))}
        selection = SelectionConfig(scorer=scorer, options=options)
        width = {"clip": 16, "siglip": 24}[family]
        assert evidence_bytes(selection, SHAPE, POOL) == 4 * (40 + 80) * width
    selection = SelectionConfig(scorer=scorer, options={"model": "openai/clip-vit-large-patch14"})
    assert evidence_bytes(selection, SHAPE, POOL) == 4 * (40 + 80) * 768
    assert evidence_bytes(SelectionConfig(scorer="random"), SHAPE, POOL) == 0


def test_a_reference_that_is_not_there_is_missing(drawn_pool):
    base = config("selection.scorer=el2n").model_dump()
    base["data"]["records"] = str(drawn_pool)
    base["model"]["path"] = str(drawn_pool.parent)
    base["selection"]["reference"] = {"model": "models/small/x", "adapter": "./lora"}
    assert find_missing(make_plan(Config.model_validate(base))) == ["models/small/x", "./lora"]


_SELECTING = {"must_keep": "lists/keep.txt", "must_drop": "drop.txt", "features_file": "own.npy"}
"""Of which none is there; the first is no OWNER/NAME."""


@pytest.mark.parametrize("is_grid", [False, True])
@pytest.mark.parametrize(
    ("selection", "missing"),
    [
        ({"scorer": "kcenter", **_SELECTING}, [*_SELECTING.values()]),
        ({"scorer": "file", "options": {"path": "own/scores.csv"}}, ["own/scores.csv"]),
        ({"scorer": "clip_score", "options": {"model": "/gone/clip"}}, ["/gone/clip"]),
        ({"scorer": "self_filter_static", "options": {"model": "./gone/clip"}}, ["./gone/clip"]),
        ({"scorer": "clip_score", "options": {"model": "openai/clip-vit-large-patch14"}}, []),
    ],
)
def test_every_file_that_a_run_reads_is_listed(selection, missing, is_grid, drawn_pool, tmp_path):
    tree = config().model_dump(mode="json", exclude_unset=True)
    tree["data"] = {"records": str(drawn_pool), "image_roots": ["/gone/images"]}
    tree["model"]["path"] = str(drawn_pool.parent)
    tree["output_dir"] = str(tmp_path)
    tree["training"] |= {"deepspeed": "gone/zero.json"}
    own = {"annotations": "gone/own.jsonl", "metric": "exact"}
    tree["evaluation"] = {"benchmarks": ["own"], "data": {"own": own}}
    if is_grid:
        tree["compare"] = {"rows": [{"name": "mine", "selection": selection}], "planted": "p.json"}
    else:
        tree["selection"] = selection
    found = find_missing(make_plan(Config.model_validate(tree)))
    expected = {"/gone/images", *missing, "gone/zero.json", "gone/own.jsonl"}
    assert set(found) == expected | ({"p.json"} if is_grid else set())


def test_every_missing_file_is_in_the_table(repository):
    """More than a dozen of them."""
    made = make_plan(load_config("configs/experiments/llava15_7b_lora.yaml"))
    (listed,) = [n for n in build_plan_table(made, 1.0).notes if n.startswith("To be put in place")]
    assert len(find_missing(made)) > 12
    assert all(path in listed for path in find_missing(made))


def test_every_scorer_is_one_that_reads_features_or_is_named():
    """A new scorer says here what it reads."""
    on_features = {name for name in SCORERS if reads_features(SelectionConfig(scorer=name))}
    assert on_features == {
        "prism", "alignment", "kernel_prism", "kernel_repulsion", "leverage", "scalselect",
        "kcenter", "kmeanspp", "semdedup", "d2", "presel",
    }  # fmt: skip


def test_a_warm_up_and_a_further_pass_count():
    pool, selection = POOL, {"scorer": "d2", "options": {"difficulty": "margin"}}
    read = config().model_copy(update={"selection": SelectionConfig.model_validate(selection)})
    features = 2 * 40 * (100 * 4 + 50 * 4)
    losses = 2 * 80 * (1000 * 10 + 50 * 4)
    assert estimate_run(read, SHAPE, pool).select_flops == features + losses
    warm = {**selection, "reference": {"warmup": {"share": 0.5}}}
    read = config().model_copy(update={"selection": SelectionConfig.model_validate(warm)})
    tuning = 0.5 * (4.14 * 1000 * (80 * 4 + 100 * 6) + 2 * 50 * 4 * 80)  # the projector's 20, too
    assert estimate_run(read, SHAPE, pool).select_flops == pytest.approx(features + losses + tuning)


def test_flops_of_tuning():
    """Half of 80 image records and all 20 others: 40 x 4 + 60 x 6 tokens; forward of 40 images.

    Of what is trained the layers, the projector and the head of 12 x 8 multiply.
    """
    subset = estimate_run(config("selection.budget=40"), SHAPE, POOL).tune_flops
    assert subset == (4 * 1000 + 2 * 1116) * (40 * 4 + 60 * 6) + 2 * 50 * 4 * 40
    whole = estimate_run(config("training.records=pool"), SHAPE, POOL).tune_flops
    assert whole == (4 * 1000 + 2 * 1116) * (80 * 4 + 100 * 6) + 2 * 50 * 4 * 80
    projector = estimate_run(
        config("training.records=pool", "training.tuning=projector"), SHAPE, POOL
    ).tune_flops
    assert projector == (4 * 1000 + 2 * 20) * (80 * 4 + 100 * 6) + 2 * 50 * 4 * 80


@pytest.mark.parametrize(
    ("training", "num_devices", "records"),
    [
        ({"max_steps": 4}, 1, 4 * 8),
        ({"max_steps": 4, "per_device_train_batch_size": 2}, 1, 4 * 2),
        ({"max_steps": 4, "per_device_train_batch_size": 2}, 3, 4 * 2 * 3),
        (
            {"max_steps": 50, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
            1,
            50 * 2 * 4,  # four epochs: steps count, as in training
        ),
        ({"max_steps": -1, "num_train_epochs": 2}, 1, 200),
        ({"max_steps": None, "num_train_epochs": None}, 1, 100),
    ],
)
def test_steps_take_the_place_of_epochs(training, num_devices, records):
    """920 tokens and 80 images in the pool's 100 records."""
    base = config("training.records=pool")
    asked = base.model_copy(update={"training": base.training.model_copy(update={"hf": training})})
    found = estimate_run(asked, SHAPE, POOL, num_devices=num_devices)
    assert found.num_tokens == pytest.approx(records * 9.2)
    assert found.num_images == pytest.approx(records * 0.8)
    assert found.tune_flops == pytest.approx(6232 * records * 9.2 + 2 * 50 * 4 * records * 0.8)


@pytest.mark.parametrize(
    ("content", "limit", "asked"),
    [
        ('[{"a": 1}, {"a": 2}]', None, 2),
        ('{"a": 1}\n\n{"a": 2}\n{"a": 3}\n', None, 3),
        ('{"a": 1}\n{"a": 2}\n', 1, 1),
        (None, 5, 5),  # `prepare` has yet to write it
        (None, None, None),
    ],
)
def test_questions_of_ones_own_are_counted(content, limit, asked, tmp_path):
    """70 tokens and 4 of the image through 1000 weights, 2 FLOPs each, and the image's tower."""
    path = tmp_path / "own.jsonl"
    if content is not None:
        path.write_text(content)
    data = {"own": {"annotations": str(path), "metric": "exact", "limit": limit}}
    tree = {**config().model_dump(mode="json"), "evaluation": {"benchmarks": ["own"], "data": data}}
    own = Config.model_validate(tree)
    expected = None if asked is None else 2 * asked * (1000 * 74 + 50 * 4)
    assert estimate_run(own, SHAPE, POOL).evaluate_flops == expected
    look_at_files_again()


@pytest.mark.parametrize(
    ("name", "limit", "asked"),
    [
        ("mmbench", None, 4_377),
        ("mmbench", 100, 373),  # rows of 100 circles
        ("mmbench", 5_000, 4_377),
        ("mmbench_cn", 1_164, 4_329),
        ("mmlu", 10, 570),  # of each of 57 subjects
        ("gsm8k", None, 1_319),
        ("pope", 100, 100),
    ],
)
def test_a_limit_is_of_what_a_benchmark_counts(name, limit, asked):
    data = {name: {"annotations": "there", "limit": limit}}
    tree = {**config().model_dump(mode="json"), "evaluation": {"benchmarks": [name], "data": data}}
    expected = 2 * asked * (1000 * 74 + 50 * 4)
    assert estimate_run(Config.model_validate(tree), SHAPE, POOL).evaluate_flops == expected


def test_packed_steps_are_of_so_many_tokens():
    base = config("training.records=pool", "training.batching=packed")
    hf = {"max_steps": 3, "per_device_train_batch_size": 64}
    changes = {"hf": hf, "tokens_per_batch": 46}
    asked = base.model_copy(update={"training": base.training.model_copy(update=changes)})
    assert estimate_run(asked, SHAPE, POOL).num_tokens == pytest.approx(3 * 46)


def test_a_pool_is_measured_where_it_is(drawn_pool):
    data = {"records": str(drawn_pool)}
    measured = measure_pool(config().model_copy(update={"data": _data(data)}))
    assert measured == PoolSize(26, 24, 16, drawn_pool.stat().st_size)
    assert measure_pool(config()) is None


def _data(values):
    return Config.model_validate({"name": "x", "model": {"path": "m"}, "data": values}).data


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A folder with our presets and an empty `runs/`, which the test works in."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(name, *rows, seeds="0"):
    grid = load_config(find_grid(name), [f"compare.seeds=[{seeds}]"])
    return make_plan(grid, rows or ["*"])


def remaining(made):
    return {cell.config.name: verbs for cell, verbs in made.remaining.items() if verbs}


GRIDS = sorted(path.stem for path in (ROOT / "configs/experiments/tables").glob("*.yaml"))


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_can_be_planned(name, repository):
    made = plan(name, seeds="0,1")
    assert {cell.seed for cell in made.runs} == {0, 1}
    assert remaining(made).keys() >= {cell.config.name for cell in made.runs}
    assert build_plan_table(made, None).rows


def test_what_others_start_from_comes_first(repository):
    made = plan("models", "phi2*")
    assert list(remaining(made).items()) == [
        ("phi2_3b_align", ("audit", "train")),
        ("phi2_3b_pool_full-seed0", ("train", "evaluate")),
        ("phi2_3b_random_full-seed0", ("select", "train", "evaluate")),
        ("phi2_3b_prism_full-seed0", ("select", "train", "evaluate")),
    ]
    missing = find_missing(made)
    assert "data/models/phi-2-clip" in missing
    assert "runs/phi2_3b_align/training/final" not in missing


def finish(run, *folders):
    for folder in folders:
        Stage(run.root / folder).finish({}, config=config())


def test_language_questions_go_to_the_runs_of_the_other_tables(repository):
    run = RunDir(repository / "runs/prism_7b_full-seed0")
    finish(run, "selection", "training", "evaluation/pope", "evaluation/mme")
    assert remaining(plan("language", "prism_7b*")) == {"prism_7b_full-seed0": ("evaluate",)}
    finish(run, *(f"evaluation/{name}" for name in ("mmlu", "mmlu_pro", "hellaswag")))
    assert remaining(plan("language", "prism_7b*")) == {}


def test_a_row_that_the_grid_has_seen_change_is_left_from_its_beginning(repository):
    (cell,) = plan("quickstart", "*_prism").runs
    asked = [f"evaluation/{name}" for name in cell.config.evaluation.benchmarks]
    finish(cell.run, "selection", "training", *asked)
    cell.finish(None)
    assert remaining(plan("quickstart", "*_prism")) == {}
    grid = load_config(find_grid("quickstart"), ["selection.budget=0.1"])
    (verbs,) = make_plan(grid, ["*_prism"]).runs.values()
    assert verbs == ("select", "train", "evaluate")
    looked = make_plan(grid, ["*_prism"], lambda *asked: ["images"] if "evaluate" in asked else [])
    assert remaining(looked) == {cell.config.name: ("evaluate",)}  # as the stages themselves say


def test_any_config_has_a_plan(repository):
    made = make_plan(load_config("configs/experiments/llava15_7b_lora.yaml"))
    assert remaining(made) == {
        "llava15_7b_lora-untuned": ("evaluate",),
        "llava15_7b_lora": ("select", "train", "evaluate"),
    }
    text = render(build_plan_table(made, None), "md")
    assert "data/models/llava-1.5-7b-pretrain" in text
    assert "2 of 2 runs are left; what they take is not known yet." in text


def test_a_plan_has_the_rows_that_run_makes(repository):
    given = ("configs/experiments/llava15_7b_lora.yaml", "compare_random=true", "data.prepare=null")
    config = load_config(given[0], given[1:])
    made = make_plan(config)
    assert remaining(made) == {
        "llava15_7b_lora-untuned": ("evaluate",),
        "llava15_7b_lora-random": ("select", "train", "evaluate"),
        "llava15_7b_lora": ("select", "train", "evaluate"),
    }
    called = [
        load_config(path, overrides).name
        for verb, path, *overrides in (step.arguments for step in plan_steps(config, given))
        if verb in ("select", "train", "evaluate")
    ]
    assert called == [name for name, verbs in remaining(made).items() for _ in verbs]
    random = list(made.runs)[1].config
    assert (random.selection.scorer, random.selection.options) == ("random", {})
    assert remaining(make_plan(load_config(given[0], ["evaluation.benchmarks=[]"]))) == {
        "llava15_7b_lora": ("select", "train")
    }


def test_a_split_of_a_folder_is_there(repository):
    (repository / "ds").mkdir()
    given = ["data.records=ds:train", "data.image_dir=null"]
    missing = find_missing(
        make_plan(load_config("configs/experiments/llava15_7b_lora.yaml", given))
    )
    assert "ds:train" not in missing
    given[0] = "data.records=/gone/ds:train"
    made = make_plan(load_config("configs/experiments/llava15_7b_lora.yaml", given))
    assert "/gone/ds:train" in find_missing(made)


def test_files_of_ones_own_that_are_not_there_are_named_and_hub_ids_are_not(repository):
    """Wherever they lie, not only under `data/` and `runs/`."""
    own = ["model.path=llava-hf/llava-1.5-7b-hf", "data.records=/mine/pool.json"]
    asked = {"mmlu": "cais/mmlu", "hellaswag": "data/eval/hs", "pope": "eval/pope"}
    own += [f"evaluation.data.{name}.annotations={path}" for name, path in asked.items()]
    own.append(f"evaluation.benchmarks=[{','.join(asked)}]")
    made = make_plan(load_config("configs/experiments/llava15_7b_full.yaml", own))
    missing = find_missing(made)
    assert {"data/eval/hs", "eval/pope"} <= set(missing)
    assert "cais/mmlu" not in missing
    assert set(BY_LM_EVAL) == set(LANGUAGE_BENCHMARKS)
    assert "/mine/pool.json" in missing
    assert "llava-hf/llava-1.5-7b-hf" not in missing


def test_hours_are_by_the_rate_that_the_runs_so_far_have_measured(
    repository, tiny_llava_dir, drawn_pool
):
    own = [f"model.path={tiny_llava_dir}", f"data.records={drawn_pool}"]
    made = make_plan(load_config("configs/experiments/llava15_7b_full.yaml", own))
    assumed = build_plan_table(made, 1.0)
    _, cell = made.runs
    entry = {"stage": "training", "device_seconds": 10.0, "counts": {"flops": 10 * 17e12}}
    entry |= {"fingerprint": "f", "finished": True}
    write_json(cell.run.timings, [entry])
    measured = build_plan_table(made, None)
    tune = assumed.header.index("tune, h")
    assert measured.rows[1][tune].value == pytest.approx(assumed.rows[1][tune].value / 17)
    assert "train 17 (measured on the runs so far), evaluate 17 (measured in tuning)" in render(
        measured, "md"
    )
    assert "TFLOP/s a device: 2 (as given)" in render(build_plan_table(made, 2.0), "md")


def test_refusals(repository, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="no table 'mian'; there are ablation, language, main"):
        find_grid("mian")
    with pytest.raises(ConfigError, match="table_main: no row is called a or b"):
        plan("main", "a", "b")
    monkeypatch.chdir(tmp_path / "runs")
    assert load_config(find_grid("main")).name == "table_main"  # shipped with the package
