"""`prism-tune init`: a config that works, of somebody's model and pool, without a question."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.cli.proposal import Devices, Fit, fit_batch
from prism_tune.cli.stages import select, train
from prism_tune.compare.shapes import PoolSize, Shape
from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError

GIB = 1 << 30


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def place(tiny_llava_dir, drawn_pool, tmp_path, monkeypatch):
    shutil.copytree(drawn_pool.parent, tmp_path / "pool")
    monkeypatch.chdir(tmp_path)
    return ["--model", tiny_llava_dir, "--records", "pool/pool.json"]


def test_what_it_writes_selects_and_tunes_as_it_is(place, tmp_path):
    result = call("init", "mine.yaml", *place)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "mine.yaml").read_text()
    assert "26 records, 24 with images, 0 unreadable" in text
    assert "prism-tune run mine.yaml" in result.output
    config = load_config("mine.yaml")
    assert (config.name, config.data.image_dir) == ("mine", "pool/images")
    assert config.model.template == "processor"
    assert config.data.max_length == 512
    select("mine.yaml")
    train("mine.yaml", ["training.hf.use_cpu=true", "training.hf.max_steps=3"])
    assert (tmp_path / "runs/mine/training/final").is_dir()


def test_paths_at_home_are_read_where_no_shell_has_expanded_them(place, tmp_path, monkeypatch):
    """As behind `--records=`; the file has a name that YAML reads as a number."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("init", "001.yaml", *place, "--records", "~/pool/pool.json").exit_code == 0
    config = load_config("001.yaml")
    assert config.name == "001"
    assert config.data.image_dir == str(tmp_path / "pool" / "images")


def test_records_that_cannot_be_read_are_counted_and_left_out_by_name(place, tmp_path):
    records = json.loads((tmp_path / "pool/pool.json").read_text())
    records[0]["conversations"][1]["value"] = ""
    records[1] = "no record"
    (tmp_path / "pool/pool.json").write_text(json.dumps(records))
    assert call("init", "mine.yaml", *place).exit_code == 0
    text = (tmp_path / "mine.yaml").read_text()
    assert "24 records, 22 with images, 2 unreadable" in text
    assert "    empty_answer: skip   # 1 left out\n    not_an_object: skip   # 1 left out\n" in text
    assert load_config("mine.yaml").data.policy == {"empty_answer": "skip", "not_an_object": "skip"}
    (tmp_path / "pool/pool.json").write_text('["no record"]')
    told = str(call("init", "other.yaml", *place).exception)
    assert "none of its 1 records can be read: record 0" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "./none"], "model.path: ./none: no such directory"),
        (["--records", "none.json"], "none.json: no such file"),
        (["--budget", "0"], "selection.budget"),
    ],
)
def test_what_is_not_there_is_called_that(place, arguments, told):
    error = call("init", "mine.yaml", *place, *arguments).exception
    assert isinstance(error, UserError)
    assert told in str(error)


def test_nothing_is_overwritten_and_nobody_is_waited_for(place, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: x")
    assert "is there already" in str(call("init", "mine.yaml", *place).exception)
    assert "--model: missing" in str(call("init", "other.yaml").exception)


SEVEN = Shape(32, 6_500_000_000, 262_000_000, 304_000_000, 21_000_000, 4096, 576, 32_000)


def fit_of(devices, tuning):
    tree = {"name": "x", "model": {"path": "m"}, "data": {"records": "p"}}
    config = Config.model_validate({**tree, "training": {"tuning": tuning}})
    return fit_batch(config, SEVEN, PoolSize(100, 80, 80, 100_000), devices)


@pytest.mark.parametrize(
    ("devices", "tuning", "fitting"),
    [
        (Devices("A100", 8, 80 * GIB), "lora", (16, "preset:zero2")),
        (Devices("L4", 1, 24 * GIB), "qlora", (8, "preset:zero2")),
        (Devices("A100", 2, 40 * GIB), "full", (8, "preset:zero3_offload")),
        (Devices("CPU", 1, 64 * GIB), "lora", (2, None)),
    ],
)
def test_the_largest_batch_that_fits(devices, tuning, fitting):
    fit = fit_of(devices, tuning)
    assert isinstance(fit, Fit)
    assert (fit.rows, fit.deepspeed) == fitting
    assert fit.num_bytes <= 0.85 * devices.num_bytes


def test_a_packed_model_is_not_proposed_to_be_shared():
    """ZeRO-3, which would fit, cannot load one in 4 bit."""
    fit = fit_of(Devices("small", 8, 6 * GIB), "qlora")
    assert fit.deepspeed == "preset:zero2"
    assert fit.num_bytes > 0.85 * 6 * GIB
