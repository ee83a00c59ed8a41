"""What docs/plugins.md shows works along the verbs' own path; nobody else's code runs."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from prism_tune.cli.options import end_with_errors, open_run
from prism_tune.cli.stages import evaluate, select
from prism_tune.config import plugins
from prism_tune.config.load import load_config, read_recorded_model
from prism_tune.config.plugins import VARIABLE, name_plugins
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError, UserError
from prism_tune.results.build import build_table
from prism_tune.run.folder import read_json
from prism_tune.run.stage import Stage
from prism_tune.selection.finished import Subset
from prism_tune.selection.inputs import find_scorer

SHOWN = Path(__file__).parents[1] / "docs" / "plugins"
PAGE = SHOWN.with_suffix(".md")


@pytest.fixture(autouse=True)
def _own_plugins(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")


@pytest.fixture
def config(tiny_llava_dir, drawn_pool, tmp_path):
    """A config file beside copies of the plugins, with a benchmark of its own."""
    for file in SHOWN.glob("*.py"):
        shutil.copy(file, tmp_path)
    images = drawn_pool.parent / "images"
    rows = [("q1", "0.png", "what is it?", "red circle"), ("q2", "1.png", "and this?", "blue")]
    with (tmp_path / "words.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "image", "question", "words"), *rows])
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
name: run
output_dir: {tmp_path / "runs"}
plugins: [{tmp_path / "my_scorer.py"}, {tmp_path / "my_benchmark.py"}]
model: {{path: {tiny_llava_dir}, template: vicuna_v1}}
data: {{records: {drawn_pool}, image_dir: {images}, num_workers: 0}}
selection: {{scorer: rare_and_hard, dtype: float32, budget: 0.5}}
training: {{tuning: none}}
evaluation:
  benchmarks: [my_words]
  data: {{my_words: {{annotations: {tmp_path / "words.csv"}, image_dir: {images}}}}}
"""
    )
    return path


def test_a_plugins_folder_may_have_a_colon_in_its_name(tmp_path):
    folder = tmp_path / "at 10:30"
    folder.mkdir()
    for name in ("my_scorer.py", "my_benchmark.py"):
        name_plugins([shutil.copy(SHOWN / name, folder)])
    assert plugins.list_plugged("SCORERS") == ["rare_and_hard"]
    assert plugins.list_plugged("BENCHMARKS") == ["my_words"]


def test_a_scorer_of_ones_own_selects_and_its_file_is_an_input(config):
    select(config, ["training.tuning=lora"])
    _, run = open_run(config, None)
    manifest = read_json(run.selection / "manifest.json")
    assert manifest["num_selected"] == 14
    assert manifest["mean_loss"] > 0
    assert set(manifest["evidence"]) == {"features", "answer_losses"}
    inputs = Stage(run.selection).require("select")["inputs"]
    assert inputs["scorer's plugin"].startswith("my_scorer.py ")
    before = (run.selection / "stage.json").stat().st_mtime_ns
    select(config)
    assert (run.selection / "stage.json").stat().st_mtime_ns == before
    file = config.parent / "my_scorer.py"
    file.write_text(file.read_text().replace('keep="high"', 'keep="low"'))
    select(config)
    assert (run.selection / "stage.json").stat().st_mtime_ns != before
    assert Stage(run.selection).config().selection.keep == "low"


def test_a_benchmark_of_ones_own_is_scored_and_has_a_column(config):
    evaluate(config)
    _, run = open_run(config, None)
    result = read_json(run.benchmark("my_words") / "results.json")
    assert set(result["metrics"]) == {"word_accuracy"}
    assert result["provenance"]["benchmark's plugin"].startswith("my_benchmark.py ")
    assert result["provenance"]["protocol"] == "its plugin's own (my_benchmark.py)"
    table = build_table("main", [run.root], baseline=None)
    assert "my_words" in table


def test_a_family_of_ones_own_is_found():
    from transformers import Cohere2VisionConfig, Cohere2VisionForConditionalGeneration

    from prism_tune.models.families import parts

    tower = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32}
    small = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 64, "head_dim": 8}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2}
    model = Cohere2VisionForConditionalGeneration(
        Cohere2VisionConfig(
            vision_config={**tower, **heads, "image_size": 28, "patch_size": 14},
            text_config={"model_type": "cohere2", **small, **heads, "num_key_value_heads": 2},
            alignment_intermediate_size=32,
        )
    )
    with pytest.raises(UserError, match="model type 'cohere2_vision' is not supported"):
        parts(model)
    name_plugins([str(SHOWN / "my_family.py")])
    assert parts(model).names["projector"] == ("model.multi_modal_projector",)


def test_a_pool_in_another_format_is_read_and_its_subset_needs_no_reader(config, drawn_pool):
    path = config.parent / "pool.csv"
    rows = [(f"{n}.png", f"what is {n}?", "a shape") for n in range(8)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "question", "answer"), *rows])
    reader = str(config.parent / "my_reader.py")
    given = [f"data.records={path}", "selection.scorer=random", "name=other"]
    with pytest.raises(UserError, match=r"pool\.csv: expected a JSON list"):
        select(config, given)
    select(config, [*given, f"plugins=[{reader}]"])
    loaded, run = open_run(config, given)
    plugins.os.environ[VARIABLE] = ""
    subset = open_pool(loaded.data.model_copy(update={"records": str(run.subset)}))
    assert len(subset) == 4
    assert subset[0].turns[1].text == "a shape"


ARMED = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\nREADERS = {}\n"


def test_no_plugin_of_a_record_is_ever_loaded(config):
    """Read back, as a base, as a checkpoint's, or as the config that a stage finished with."""
    strange = config.parent / "strange.py"
    strange.write_text(ARMED)
    select(config, ["selection.scorer=random"])
    _, run = open_run(config, None)
    record = run.selection / "config.yaml"
    record.write_text(record.read_text().replace("my_scorer.py", "strange.py"))
    stage = json.loads((run.selection / "stage.json").read_text())
    stage["config"]["plugins"] = [str(strange)]
    (run.selection / "stage.json").write_text(json.dumps(stage))
    checkpoint = config.parent / "prism_tune.yaml"
    checkpoint.write_text(record.read_text())
    based = config.parent / "based.yaml"
    based.write_text(f"base: {record}\n")
    plugins.os.environ[VARIABLE] = ""
    for path in (record, checkpoint, based):
        with pytest.raises(ConfigError, match="the record of a run cannot name plugins"):
            select(path)
    assert read_recorded_model(checkpoint).path
    assert Stage(run.selection).config().plugins == ()
    assert load_config(record, ["plugins=[]"]).plugins == ()
    assert len(Subset(run)) == 14
    assert plugins.os.environ[VARIABLE] == ""
    assert not strange.with_suffix(".ran").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SCORERS = {", r"mine\.py: line 1: '\{' was never closed"),
        ("\nimport nothing_there", r"line 2: ModuleNotFoundError: No module named 'nothing_there'"),
        ("SCORERS = {'mine': print}", r"SCORERS\['mine'\] is a builtin_function_or_method, expec"),
        ("SCORERS = ['mine']", r"SCORERS: expected a dictionary by name"),
        ("scorers = {}", "has none of SCORERS, BENCHMARKS, FAMILIES, READERS"),
        ("SCORERS = {'mine': 1, 'prism': 2}", "scorer 'prism': prism_tune itself has one"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_said(text, told, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    name_plugins([str(tmp_path / "mine.py")])
    with pytest.raises(ConfigError, match=told):
        find_scorer("prism" if "prism" in text else "mine")


def test_an_error_in_a_plugin_names_its_line(config, capsys):
    file = config.parent / "my_scorer.py"
    file.write_text(file.read_text().replace('measured["nll"]', 'measured["nil"]'))
    with pytest.raises(SystemExit):
        end_with_errors(lambda: select(config))
    told = " ".join(capsys.readouterr().err.split())
    assert "my_scorer.py: line 12: KeyError: 'nil'" in told
    assert "Traceback" not in told


def test_a_file_that_is_not_there_is_said_before_anything(config):
    with pytest.raises(ConfigError, match=r"plugins: gone\.py: no such Python file"):
        open_run(config, ["plugins=[gone.py]"])


def test_installed_packages_count_by_their_entry_points(tmp_path, monkeypatch):
    shutil.copy(SHOWN / "my_scorer.py", tmp_path / "their_scorers.py")
    described = tmp_path / "theirs-1.2.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n")
    group = "[prism_tune.plugins]\nrare = their_scorers\nbroken = not_there_at_all\n"
    (described / "entry_points.txt").write_text(group)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    plugins._load_installed.cache_clear()
    assert find_scorer("rare_and_hard").keep == "high"
    assert plugins.describe_plugin("SCORERS", "rare_and_hard") == {
        "scorer's plugin": "rare their_scorers 1.2"
    }
    plugins._load_installed.cache_clear()


@pytest.mark.parametrize("file", sorted(SHOWN.glob("*.py")), ids=lambda file: file.stem)
def test_the_page_shows_what_is_run(file):
    assert f"```python\n{file.read_text()}```" in PAGE.read_text()
    assert len(file.read_text().splitlines()) <= 42
