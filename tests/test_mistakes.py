"""Mistakes and damaged files, each through the real command line: a code, a phrase, no traceback.

`mistakes.yaml` is the table. A row is a verb's overrides, or a file and what happens to it, with
the code and the phrase that has to stand in the message. Rows of a file name the verb; the code 0
is of what is made again by itself.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from support.tiny import draw_pool, save_tiny_llava
from support.tiny_runs import draw_questions, tiny_config

from prism_tune.cli import app
from prism_tune.cli.options import end_with_errors

TABLE = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text())
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "junk": lambda path: path.write_bytes(b"\x93junk\xff\x00" * 20),
    "object": lambda path: path.write_bytes(b"{}"),
    "list": lambda path: path.write_bytes(b"[]"),
    "gone": lambda path: path.unlink(),
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A place with a model, a pool, questions and a finished run; below it `cache` is its own."""
    folder = tmp_path_factory.mktemp("finished") / "place"
    folder.mkdir()
    save_tiny_llava(folder / "model")
    draw_pool(folder / "pool")
    questions = draw_questions(folder / "questions")
    config = tiny_config(folder, folder / "model", folder / "pool" / "pool.json", questions)
    config["training"]["hf"] |= {"save_strategy": "steps", "save_steps": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_TUNE_CACHE", str(folder / "cache"))
        for verb in ("audit", "select", "train", "evaluate"):
            assert call(patch, verb, str(folder / "config.yaml")) == 0
    shutil.copytree(folder, folder.with_name("kept"), symlinks=True)
    return folder


@pytest.fixture
def place(finished, monkeypatch):
    """The same, as it was: paths in it are absolute."""
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(finished / "cache"))
    yield finished
    shutil.rmtree(finished)
    shutil.copytree(finished.with_name("kept"), finished, symlinks=True)


def call(monkeypatch, *arguments):
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["prism-tune", *arguments])
    with pytest.raises(SystemExit) as ended:
        end_with_errors(app.app)
    return ended.value.code


def check(capfd, code, expected, says):
    out, said = capfd.readouterr()
    told = " ".join((said + out).split())
    assert "Traceback" not in said
    assert "cannot go on:" not in told  # somebody knows better
    assert code == expected, told[-600:]
    assert says in told


@pytest.mark.parametrize("row", TABLE["settings"], ids=lambda row: row[0][:60])
def test_settings(finished, tmp_path, monkeypatch, capfd, row):
    overrides, code, says = row
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(finished / "cache"))
    given = ["training.records=pool", "training.hf.max_steps=1", f"output_dir={tmp_path}/runs"]
    given += overrides.replace("HERE", str(tmp_path)).split(" ")
    (tmp_path / "file").touch()
    config = str(finished / "config.yaml")
    check(capfd, call(monkeypatch, "train", config, *given), code, says)


@pytest.mark.parametrize("row", TABLE["files"], ids=lambda row: " ".join(map(str, row[:3])))
def test_files(place, tmp_path, monkeypatch, capfd, row):
    pattern, damage, verb, code, says = row
    paths = sorted(place.glob(pattern))
    assert paths
    for path in paths:
        DAMAGES[damage](path)
    run, config = str(place / "runs" / "tiny"), str(place / "config.yaml")
    arguments = {
        "export": ("export", run, "--to", str(tmp_path / "exported")),
        "report": ("report", run),
        "tables": ("tables", "main", "--runs", run),
        "subset": ("subset", "export", run, "--to", str(tmp_path / "subset.json")),
        "anew": ("train", config, "name=anew", "training.records=pool"),
        "again": ("select", config, "name=again"),
        "unfinished": ("train", config),
        "adapter": (
            *("evaluate", config, "name=other", "training.tuning=none"),
            f"model.path={run}/training/final",
        ),
    }.get(verb, (verb, config))
    if verb == "unfinished":
        (place / "runs/tiny/training/stage.json").unlink()
        shutil.rmtree(place / "runs/tiny/training/final")
    check(capfd, call(monkeypatch, *arguments), code, says)
