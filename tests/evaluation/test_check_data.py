"""What a config's data check says."""

import json

import pytest
import yaml
from support.tiny import draw_image
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.load import load_config
from prism_tune.evaluation.check_data import find_all


@pytest.fixture
def config_path(tmp_path):
    """A pool and two benchmarks, of which one is not there."""
    (tmp_path / "pool.json").write_text("[]")
    (tmp_path / "images").mkdir()
    draw_image(tmp_path / "images/1.png", 1)
    row = {"question_id": "1", "image": "1.png", "text": "?", "answer": "a", "category": "c"}
    (tmp_path / "test.json").write_text(json.dumps([row]))
    config = {
        "name": "trial",
        "model": {"path": "m"},
        "data": {"records": f"{tmp_path}/pool.json", "image_dir": f"{tmp_path}/images"},
        "evaluation": {
            "benchmarks": ["quickstart", "pope"],
            "data": {
                "quickstart": {
                    "annotations": f"{tmp_path}/test.json", "image_dir": f"{tmp_path}/images",
                },
                "pope": {"annotations": f"{tmp_path}/pope"},
                "mmlu": {"annotations": f"{tmp_path}/images"},
            },
        },
    }  # fmt: skip
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "trial.yaml"


def test_what_is_there_and_what_is_missing(config_path):
    findings = {finding.name: finding for finding in find_all(load_config(config_path))}
    assert {name for name, finding in findings.items() if not finding.is_there} == {"pope", "mmlu"}
    assert findings["quickstart"].detail == "1 questions, 1 images"
    assert "expected POPE's three official files" in findings["pope"].detail
    assert f"`prism-tune data pope --to {config_path.parent}/pope`" in findings["pope"].detail
    assert "no test*.parquet" in findings["mmlu"].detail


def test_a_source_record_of_somebody_elses_is_no_error(config_path):
    (config_path.parent / "pope").mkdir()
    (config_path.parent / "pope" / "source.json").write_text('{"url": "x"}')
    findings = {finding.name: finding for finding in find_all(load_config(config_path))}
    assert f"`prism-tune data pope --to {config_path.parent}/pope`" in findings["pope"].detail


def test_missing_images_are_named(config_path):
    (config_path.parent / "images/1.png").unlink()
    findings = {finding.name: finding for finding in find_all(load_config(config_path))}
    assert "1 of 1 images are not in" in findings["quickstart"].detail


@pytest.mark.parametrize(
    ("records", "is_there", "detail"),
    [
        ("liuhaotian/LLaVA-Instruct-150K", True, "a hub id: fetched when it is first read"),
        ("owner/name:validation", True, "a hub id: fetched when it is first read"),
        ("images:train", True, "the pool; data/README.md has its layout"),
        ("images/pool", False, "the pool; data/README.md has its layout"),
        ("owner/pool.json", False, "the pool; data/README.md has its layout"),
    ],
)
def test_a_hub_id_is_not_a_missing_file(config_path, monkeypatch, records, is_there, detail):
    monkeypatch.chdir(config_path.parent)  # where there is a folder `images`
    config = load_config(config_path, [f"data.records={records}"])
    (found,) = [finding for finding in find_all(config) if finding.name == "data.records"]
    assert (found.is_there, found.detail) == (is_there, detail)


def test_language_data_that_are_not_there_are_no_hub_id(config_path, monkeypatch):
    monkeypatch.chdir(config_path.parent)
    told = {}
    for path in ("data/eval/mmlu", "images/mmlu", "/gone", "test.json", "cais/mmlu"):
        config = load_config(config_path, [f"evaluation.data.mmlu.annotations={path}"])
        (told[path],) = [finding for finding in find_all(config) if finding.name == "mmlu"]
    assert [path for path, finding in told.items() if finding.is_there] == ["cais/mmlu"]
    assert told["cais/mmlu"].detail == "from the hub, when it runs"
    assert told["data/eval/mmlu"].detail == (
        "evaluation.data.mmlu.annotations: data/eval/mmlu: no such folder; expected one with the "
        "hub's parquet files, or a hub id OWNER/NAME; `prism-tune data mmlu --to data/eval/mmlu`"
    )


def test_the_exit_code_says_whether_all_is_there(config_path):
    run = CliRunner().invoke(app, ["data", "check", str(config_path)])
    assert run.exit_code == 1
    complete = yaml.safe_load(config_path.read_text())
    complete["evaluation"]["benchmarks"] = ["quickstart"]
    del complete["evaluation"]["data"]["pope"], complete["evaluation"]["data"]["mmlu"]
    config_path.write_text(yaml.safe_dump(complete))
    assert CliRunner().invoke(app, ["data", "check", str(config_path)]).exit_code == 0


@pytest.mark.parametrize("arguments", [["data", "check"], ["data", "pope"]])
def test_incomplete_commands_say_what_is_missing(arguments):
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2
    assert "prism-tune data" in run.output
