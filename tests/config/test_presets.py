"""`preset:NAME`: what ships with the package, from any folder and wherever a config is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.cli.grid import find_grid
from prism_tune.compare.files import look_at_files_again
from prism_tune.compare.plan import make_plan
from prism_tune.config.load import load_config, render_config
from prism_tune.config.presets import find_file, list_presets
from prism_tune.errors import ConfigError
from prism_tune.run.folder import RunDir
from prism_tune.training.arguments import deepspeed_options

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = "{name: trial, model: {path: m}, data: {records: pool.json}}"
RESOLVED = """\
name: trial
seed: 0
model_name: null
output_dir: runs
compare_random: false
plugins: []
model:
  path: m
"""


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch) -> Path:
    """An empty folder, which the test works in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prism_tune(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_file_of_configs_has_a_name():
    shipped = {*list_presets("experiments").values(), *list_presets("deepspeed").values()}
    assert shipped == {path for path in CONFIGS.rglob("*.*") if path.is_file()}
    assert {"quickstart", "llava15_7b_lora", "tables/main"} <= set(list_presets("experiments"))
    assert {"zero2", "zero3_offload"} <= set(list_presets("deepspeed"))


def test_a_preset_is_the_file_that_people_read():
    for kind, suffix in (("experiments", ".yaml"), ("deepspeed", ".json")):
        for name in list_presets(kind):
            path = CONFIGS / kind / f"{name}{suffix}"
            assert find_file(f"preset:{name}", kind) == path
            assert find_file(f"configs/{kind}/{name}{suffix}", kind) == path  # as in the docs


@pytest.mark.parametrize(("name", "stage"), [("llava15_7b_lora", 3), ("tables/models", 3)])
def test_what_a_preset_names_is_found_from_an_empty_folder(name, stage):
    """Its base, its DeepSpeed file, and the configs that have to be trained before it."""
    config = load_config(f"preset:{name}")
    assert deepspeed_options(config)["zero_optimization"]["stage"] == stage
    before = make_plan(config).before
    assert len(before) == (4 if name == "tables/models" else 0)


def test_a_preset_below_a_config_of_ones_own(empty):
    (empty / "own.yaml").write_text("{base: preset:llava15_7b_lora, name: own, seed: 3}")
    config = load_config("own.yaml")
    assert (config.name, config.seed, config.training.lora["r"]) == ("own", 3, 128)
    assert config.data.records == "data/LLaVA-Tuning/llava_v1_5_mix665k.json"
    (empty / "below.yaml").write_text("{base: own.yaml, seed: 4}")
    assert load_config("below.yaml").seed == 4


@pytest.mark.parametrize(
    ("given", "stage"),
    [
        ([], 2),
        (["training.deepspeed=preset:zero3"], 3),
        (["training.deepspeed=configs/deepspeed/zero3_offload.json"], 3),
    ],
)
def test_deepspeed_files_are_found_without_a_checkout(empty, given, stage):
    (empty / "own.yaml").write_text(MINIMAL)
    options = deepspeed_options(load_config("own.yaml", given))
    assert options["zero_optimization"]["stage"] == stage


def test_a_file_of_ones_own_goes_before_the_shipped_one_of_its_name(empty):
    for name in ("experiments/quickstart.yaml", "deepspeed/zero2.json"):
        (empty / "configs" / name).parent.mkdir(parents=True)
    (empty / "configs/experiments/quickstart.yaml").write_text(MINIMAL)
    (empty / "configs/deepspeed/zero2.json").write_text('{"mine": true}')
    config = load_config("configs/experiments/quickstart.yaml")
    assert config.name == "trial"
    assert (deepspeed_options(config) or {})["mine"]
    assert load_config("preset:quickstart").name == "quickstart"


def test_an_ordinary_config_is_recorded_as_before(empty):
    (empty / "own.yaml").write_text(MINIMAL)
    recorded = render_config(load_config("own.yaml"))
    assert recorded.startswith(RESOLVED)
    assert "  deepspeed: configs/deepspeed/zero2.json\n" in recorded
    assert "preset" not in recorded
    assert str(CONFIGS) not in render_config(load_config("preset:llava15_7b_lora"))


def test_a_grid_sees_that_a_shipped_deepspeed_file_has_changed(empty, monkeypatch):
    """In a package as a wheel lays it out, with `configs` inside."""
    shutil.copytree(CONFIGS, empty / "site/prism_tune/configs")
    monkeypatch.setattr("prism_tune.config.presets._PACKAGE", empty / "site/prism_tune")
    (empty / "own.yaml").write_text(MINIMAL)
    (cell,) = make_plan(load_config("own.yaml")).runs
    cell.finish(None)
    assert cell.state() == "finished"
    (empty / "site/prism_tune/configs/deepspeed/zero2.json").write_text("{}")
    look_at_files_again()
    assert cell.changed() == ["model"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("preset:quikstart", "preset:quikstart: no such preset; did you mean preset:quickstart?"),
        ("preset:main", "no such preset; did you mean preset:tables/main?"),
        ("preset:quickstart.yaml", "did you mean preset:quickstart or preset:tables/quickstart?"),
        ("preset:nothing-like-it", "no such preset\n`prism-tune presets` lists them"),
        ("preset:", "preset:: no such preset\n"),
        ("preset:zero2", "is a DeepSpeed file, for training.deepspeed; expected a config"),
        ("quikstart", "quikstart: no such config file; did you mean preset:quickstart?"),
        ("llava15_7b_lora.yaml", "no such config file; did you mean preset:llava15_7b_lora?"),
        ("configs/experiments/phi2_3b_ful.yaml", "did you mean preset:phi2_3b_full or"),
    ],
)
def test_a_misspelt_preset_gets_the_nearest_names(given, complaint):
    with pytest.raises(ConfigError) as refused:
        load_config(given)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("preset:zero22", "no such preset; did you mean preset:zero2"),
        ("preset:quickstart", "is a config; expected a DeepSpeed file, for training.deepspeed"),
        ("configs/deepspeed/zero9.json", "zero9.json: no such file; null trains without"),
    ],
)
def test_a_misspelt_deepspeed_file(empty, given, complaint):
    (empty / "own.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigError) as refused:
        deepspeed_options(load_config("own.yaml", [f"training.deepspeed={given}"]))
    assert complaint in str(refused.value)


def test_a_base_that_is_no_preset_is_refused(empty):
    (empty / "own.yaml").write_text("{base: preset:llava15_7b_lor, name: own}")
    with pytest.raises(ConfigError, match=r"did you mean preset:llava15_7b_lora"):
        load_config("own.yaml")


def test_a_table_is_found_by_its_name_and_as_a_preset():
    assert find_grid("main") == find_file("preset:tables/main", "experiments")
    assert load_config(find_grid("preset:tables/main")) == load_config(find_grid("main"))
    with pytest.raises(ConfigError, match="no table 'mian'; there are ablation, language, main"):
        find_grid("mian")


@pytest.mark.slow
def test_every_verb_that_takes_a_config_takes_a_preset(monkeypatch):
    """Paths inside are the user's: relative to the folder that the verb is called in."""
    assert (
        prism_tune("show", "preset:quickstart", "--key", "name,output_dir") == "quickstart\nruns\n"
    )
    assert "2 of 2 runs are left" in prism_tune("plan", "preset:llava15_7b_full")
    assert "of 26 runs are left" in prism_tune("plan", "preset:tables/main")
    checked = CliRunner().invoke(app, ["data", "check", "preset:llava15_7b_lora"])
    assert checked.exit_code == 1
    assert "data/eval/pope/coco" in checked.output
    opened = []
    stages = {
        "prepare": "prism_tune.quickstart.prepare.prepare",
        "audit": "prism_tune.audit.audit.audit",
        "select": "prism_tune.selection.select.select",
        "train": "prism_tune.training.train.train",
        "evaluate": "prism_tune.evaluation.evaluate.evaluate",
        "preview": "prism_tune.training.preview.preview",
    }
    for verb, function in stages.items():
        monkeypatch.setattr(function, lambda config, *run, **_: opened.append((config, *run[:1])))
        CliRunner().invoke(app, [verb, "preset:quickstart", "seed=5"], catch_exceptions=False)
    assert [(config.name, config.seed) for config, *_ in opened] == [("quickstart", 5)] * 6
    assert opened[2][1].root == RunDir(Path("runs/quickstart")).root


def test_what_ships_is_listed():
    listed = prism_tune("presets")
    assert "preset:llava15_13b_full  " in listed
    first = "The paper's main table: LLaVA-1.5-7B, tuned in full on what each selector keeps"
    assert f"preset:tables/main  {first}" in " ".join(listed.split()).replace(
        "main The", "main  The"
    )
    assert listed.endswith("preset:zero3  preset:zero3_offload\n")
