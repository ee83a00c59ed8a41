"""Every file in configs/ can be used: it loads strictly, and the libraries take what it passes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from omegaconf import OmegaConf
from peft import LoraConfig
from transformers import TrainingArguments

from prism_tune.compare.cells import Cell
from prism_tune.compare.grid_cells import plan_cells
from prism_tune.config.load import load_config, render_config
from prism_tune.config.sections import CompareConfig
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.run.folder import RunDir
from prism_tune.selection.inputs import resolve_selection
from prism_tune.selection.scorers import SCORERS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
BASES = sorted(CONFIGS.rglob("base/*.yaml"))
EXPERIMENTS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path not in BASES]
DEEPSPEED = sorted((CONFIGS / "deepspeed").glob("*.json"))


def stem(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


load = cache(load_config)
"""A config is frozen: the tests share what one of them has loaded."""


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=stem)


@each(EXPERIMENTS)
def test_loads_strictly_and_survives_being_saved(path, tmp_path):
    config = load(path)
    saved = tmp_path / "config.yaml"
    saved.write_text(render_config(config))
    assert load_config(saved) == config


@each(EXPERIMENTS)
def test_training_arguments_accept_what_is_passed_through(path, tmp_path):
    options = load(path).training.hf
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    assert {key: getattr(arguments, key) for key in options} == options


@each(EXPERIMENTS)
def test_peft_accepts_what_is_passed_through(path):
    options = load(path).training.lora
    assert options.keys() <= {field.name for field in dataclasses.fields(LoraConfig)}
    assert LoraConfig(**options).r == options.get("r", LoraConfig().r)


def known_benchmarks(config) -> set[str]:
    """Those with data that are shipped, or by their `metric` of the config's own."""
    known = BENCHMARKS.keys() | LANGUAGE_BENCHMARKS.keys()
    return {name for name, data in config.evaluation.data.items() if data.metric or name in known}


@each(EXPERIMENTS)
def test_names_only_what_exists(path):
    config = load(path)
    assert config.selection.scorer in SCORERS
    assert set(config.evaluation.benchmarks) <= known_benchmarks(config)
    if config.training.deepspeed is not None:
        assert (ROOT / config.training.deepspeed).is_file()


@each(EXPERIMENTS)
def test_is_named_after_its_file(path):
    """A table's own folder is not that of a run: runs/table_quickstart, runs/quickstart."""
    prefix = {"tables": "table_", "published": "published_"}.get(path.parent.name, "")
    assert load(path).name == prefix + path.stem


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    """Every cell of every grid that is shipped."""
    grids = [config for path in EXPERIMENTS if (config := load(path)).compare]
    return [cell for grid in grids for cell in plan_cells(grid, RunDir(Path("runs") / grid.name))]


def test_runs_share_a_folder_only_to_ask_the_same_model_more(cells):
    recipes: dict[Path, set[str]] = {}
    for config in [load(path) for path in EXPERIMENTS] + [cell.config for cell in cells]:
        tuned = config.model_dump_json(exclude={"evaluation", "compare"})
        recipes.setdefault(Path(config.output_dir) / config.name, set()).add(tuned)
    assert [name for name, distinct in recipes.items() if len(distinct) > 1] == []


def test_every_cell_names_only_what_exists_and_all_that_its_scorer_needs(cells):
    for config in (cell.config for cell in cells):
        assert resolve_selection(config).selection.scorer in SCORERS
        assert set(config.evaluation.benchmarks) <= known_benchmarks(config)


def test_rows_of_the_tables(cells):
    """How many, and a few of them to the letter."""
    counts = Counter(cell.folder.parts[1] for cell in cells if "table_" in str(cell.folder))
    assert counts == {
        **{"table_main": 26, "table_main_lora": 26, "table_ablation": 10, "table_models": 18},
        **{"table_visionflan": 3, "table_visionflan_lora": 3, "table_language": 6},
        **{"table_selectors": 26, "table_published": 14},
        "table_quickstart": 10,
    }
    rows = {cell.selector: cell.config for cell in cells}
    assert rows["layer_deep_7b_full"].selection.layer == 32
    assert rows["budget_third_7b_full"].selection.budget == 0.333
    assert rows["keep_high_7b_full"].selection.keep == "high"
    assert rows["pool_7b_lora"].training.records == "pool"
    assert rows["kcenter_7b_lora"].training.lora["r"] == 128
    assert rows["kcenter_7b_lora"].training.hf["learning_rate"] == 2e-4
    assert rows["visionflan_random_7b_lora"].data.columns == {"source": "task_name"}
    assert rows["quickstart_untuned"].training.tuning == "none"
    assert rows["quickstart_prism"].evaluation.data["words"].limit == 100


@pytest.mark.parametrize(
    ("row", "preset"),
    [
        ("prism_7b_full", "llava15_7b_full"),
        ("prism_7b_lora", "llava15_7b_lora"),
        ("vicuna_13b_prism_full", "llava15_13b_full"),
        ("llama3_8b_prism_full", "llama3_8b_full"),
        ("phi2_3b_prism_full", "phi2_3b_full"),
        ("qwen25_7b_base_prism_full", "qwen25_7b_base_full"),
        ("qwen25_7b_instruct_prism_full", "qwen25_7b_instruct_full"),
    ],
)
def test_a_models_row_is_its_preset(row, preset, cells):
    own = load(CONFIGS / f"experiments/{preset}.yaml")
    asked_more = ("language", "selectors", "published")
    own_cells = [c for c in cells if c.selector == row]
    own_cells = [c for c in own_cells if not any(grid in str(c.folder) for grid in asked_more)]
    assert own_cells
    for cell in own_cells:
        assert cell.config == own.model_copy(update={"name": f"{row}-seed0"})


def test_what_others_start_from_is_here_and_used(cells):
    for path in EXPERIMENTS:
        for before in (load(path).compare or CompareConfig()).before:
            checkpoint = RunDir(Path("runs") / load(ROOT / before).name).checkpoint
            assert str(checkpoint) in {cell.config.model.path for cell in cells}


@each(BASES)
def test_base_is_used(path):
    bases = [
        (user.parent / base).resolve()
        for user in EXPERIMENTS
        if (base := OmegaConf.load(user).get("base"))
    ]
    assert path.resolve() in bases


@each(DEEPSPEED)
def test_deepspeed_file_leaves_the_run_to_the_config(path):
    """`auto` is filled in from TrainingArguments, so that no value stands in two places."""
    options = json.loads(path.read_text())
    zero = options.pop("zero_optimization")
    assert options == {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
    }
    given = {key: value for key, value in zero.items() if value != "auto"}
    parsed = DeepSpeedZeroConfig(**given)
    assert path.stem.startswith(f"zero{int(parsed.stage)}")
    assert parsed.model_extra in (None, {})
    assert parsed.gather_16bit_weights_on_model_save is (parsed.stage == 3)


def test_offload_files_differ_from_their_stage_only_in_offloading():
    for stage in (2, 3):
        plain, offload = (
            json.loads((CONFIGS / f"deepspeed/zero{stage}{suffix}.json").read_text())
            for suffix in ("", "_offload")
        )
        assert offload["zero_optimization"].pop("offload_optimizer")["device"] == "cpu"
        if stage == 3:
            assert offload["zero_optimization"].pop("offload_param")["device"] == "cpu"
        assert offload == plain


def takes_a_model_of_its_own(path: Path) -> bool:
    config = load(path)
    return config.data.prepare is None and config.training.tuning != "none"


LARGE = [p for p in EXPERIMENTS if takes_a_model_of_its_own(p) and "comparison" not in p.stem]


@each(LARGE)
def test_a_save_of_a_large_model_has_time_and_slurm_leaves_it(path):
    """A 13B tuned in full writes 183 GB and hashes 52; `run` waits 15 seconds longer."""
    grace_seconds = load(path).training.grace_seconds
    assert grace_seconds == 600
    for job in (ROOT / "scripts" / "slurm").glob("*.sbatch"):
        asked = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", job.read_text(), re.M)
        assert [int(seconds) >= grace_seconds + 15 for seconds in asked] == [True]


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiments").glob("*_align.yaml")))
def test_alignment_presets_are_the_official_recipe(path):
    """LLaVA-1.5's pretrain.sh: no padding, no grouping by length, the projector alone."""
    config = load(path)
    hf = config.training.hf
    assert config.model.image_aspect_ratio == "crop"
    assert (config.training.batching, config.training.tuning) == ("random", "projector")
    assert (hf["learning_rate"], hf["num_train_epochs"], hf["weight_decay"]) == (1e-3, 1, 0.0)
    assert hf["per_device_train_batch_size"] * hf["gradient_accumulation_steps"] * 8 == 256
    assert config.training.deepspeed == "configs/deepspeed/zero2.json"


@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize(("tuning", "rate"), [("lora", 2e-4), ("full", 2e-5)])
def test_llava_presets_are_the_official_recipe(size, tuning, rate):
    """LLaVA-1.5's published scripts: finetune.sh and finetune_lora.sh."""
    config = load(CONFIGS / f"experiments/llava15_{size}_{tuning}.yaml")
    hf = config.training.hf
    assert config.training.tuning == tuning
    assert hf["learning_rate"] == rate
    assert hf["per_device_train_batch_size"] * hf["gradient_accumulation_steps"] * 8 == 128
    assert (hf["num_train_epochs"], hf["weight_decay"], hf["bf16"]) == (1, 0.0, True)
    assert (hf["lr_scheduler_type"], hf["warmup_steps"]) == ("cosine", 0.03)
    assert (config.data.max_length, config.model.image_aspect_ratio) == (2048, "pad")
    assert (config.model.template, config.training.freeze) == ("vicuna_v1", ("vision_tower",))
    assert config.training.deepspeed == "configs/deepspeed/zero3.json"
    if tuning == "lora":
        assert (config.training.lora["r"], config.training.lora["lora_alpha"]) == (128, 256)
        assert config.training.learning_rates == {"projector": 2e-5}
