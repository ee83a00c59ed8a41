"""Where `export` writes: whole with its card or not at all, and what lies beside is left alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.models.export import export
from prism_tune.run.folder import RunDir, read_json, write_json
from prism_tune.run.stage import Stage

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tiny_llava_dir, tmp_path):
    """A finished run that has tuned the tiny model not at all."""
    tree = {
        "name": "mine",
        "model": {"path": str(tiny_llava_dir)},
        "data": {"records": "pool.json"},
    }
    found = RunDir(tmp_path / "runs" / "mine")
    shutil.copytree(tiny_llava_dir, found.checkpoint)
    Stage(found.training).finish({}, config=Config.model_validate(tree))
    entry = {"stage": "training", "device": "cpu", "device_seconds": 12.0, "counts": {}}
    write_json(found.timings, [{**entry, "fingerprint": "f", "finished": True}])
    return found


def call(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_the_users_beside_it_stays(tiny_llava_dir, tmp_path):
    mine = tmp_path / "out" / "model.partial"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    left = tmp_path / "out" / ".model.prism_tune-a8f_x0q1"  # by a killed export
    left.mkdir()
    export(tiny_llava_dir, tmp_path / "out" / "model")
    assert (mine / "notes.txt").read_text() == "mine"
    assert names(tmp_path / "out") == ["model", "model.partial"]
    usual = tmp_path / "usual"
    usual.mkdir()
    assert (tmp_path / "out" / "model").stat().st_mode == usual.stat().st_mode


def test_a_card_that_cannot_be_made_leaves_nothing(run, tmp_path):
    to, timings = tmp_path / "out" / "model", run.timings.read_bytes()
    run.timings.write_bytes(timings[:-20])
    failed = call(run.root, "--to", to)
    assert failed.exit_code == 1
    assert isinstance(failed.exception, UserError)
    assert str(failed.exception).startswith(f"{run.timings}: ")
    without = f"prism-tune export {run.checkpoint} --to"
    assert without in str(failed.exception)
    assert not to.parent.exists()
    run.timings.write_bytes(timings)
    done = call(run.root, "--to", to)
    assert done.exit_code == 0, done.output
    assert "| training | cpu | 12 |" in (to / "README.md").read_text()


def test_the_card_is_there_from_the_first(run, tmp_path, monkeypatch):
    to, replace, seen = tmp_path / "model", os.replace, []

    def look(source, target):
        if Path(target) == to:
            seen.append(names(Path(source)))
        replace(source, target)

    monkeypatch.setattr("prism_tune.models.write.os.replace", look)
    assert call(run.root, "--to", to).exit_code == 0
    assert "README.md" in seen[0]
    assert "model.safetensors" in seen[0]


def test_a_failed_push_says_how_it_is_repeated(run, tmp_path, monkeypatch):
    class Hub:
        def __init__(self, token):
            pass

        def create_repo(self, *_given, **_options):
            raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    to = tmp_path / "my model"
    failed = call(run.root, "--to", to, "--push-to-hub", "me/model", "--private")
    assert failed.exit_code == 1
    says = f"{to} is written; `hf upload me/model '{to}' --private` sends it as it is"
    assert str(failed.exception).endswith(says)
    assert (to / "README.md").exists()
    assert read_json(to / "config.json")["model_type"] == "llava"
