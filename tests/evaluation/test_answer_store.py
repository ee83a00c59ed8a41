"""Finished results stay until new ones are complete, and are then replaced whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.evaluation_runs import interrupt_batch

from prism_tune.errors import UserError
from prism_tune.evaluation import checkpoint
from prism_tune.evaluation.answer_store import ResultFolder
from prism_tune.run import replace
from prism_tune.run.stage import Stage

pytestmark = pytest.mark.slow


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def finished(setting):
    """The folder of a finished evaluation, a judge's file in it."""
    setting.evaluate()
    folder = setting.run.benchmark("quickstart")
    (folder / "grades.json").write_text("{}")
    return folder


def test_an_interrupted_evaluation_leaves_the_finished_one(setting, finished, asked, monkeypatch):
    before = snapshot(finished)
    for _ in range(2):  # the second goes on where the first stopped
        with monkeypatch.context() as patch:
            interrupt_batch(patch, number=3)
            with pytest.raises(KeyboardInterrupt):
                setting.evaluate(batch_size=2)
        assert snapshot(finished) == before
    asked.clear()
    setting.evaluate(batch_size=2)
    assert len(asked) == 12 - 8
    assert Stage(finished).config().evaluation.batch_size == 2
    assert setting.results()["provenance"]["batch_size"] == 2
    assert (finished / "grades.json").exists()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {"benchmarks": ["quickstart", "quickstrat"]},
        {"benchmarks": ["quickstart", "mme"]},
        {"tuning": "full"},
        {"controls": ["shuffled"], "limit": 1},
        {"remove": "1.png"},
        {"break": "1.png"},
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_leaves_everything(setting, tmp_path, change, force):
    images = tmp_path / "images"
    shutil.copytree(setting.data_dir / "images", images)
    annotations = {"annotations": str(setting.data_dir / "test.json"), "image_dir": str(images)}
    setting.evaluate(data={"quickstart": annotations})
    before = snapshot(setting.run.root)
    change = dict(change)
    if "limit" in change:
        annotations["limit"] = change.pop("limit")
    if "remove" in change:
        (images / change.pop("remove")).unlink()
    if "break" in change:
        (images / change.pop("break")).write_bytes(b"GIF89a")
    with pytest.raises(UserError):
        setting.evaluate(data={"quickstart": annotations}, batch_size=3, force=force, **change)
    assert snapshot(setting.run.root) == before


def test_a_model_that_cannot_be_opened_leaves_everything(setting, finished, monkeypatch):
    before = snapshot(finished)

    def fail(*_, **__):
        raise UserError("no such weights")

    monkeypatch.setattr(checkpoint, "load_tuned", fail)
    with pytest.raises(UserError, match="no such weights"):
        setting.evaluate(force=True)
    assert snapshot(finished) == before


@pytest.mark.parametrize("number", range(1, 6))
def test_a_kill_between_two_files_never_leaves_a_mix(setting, finished, monkeypatch, number):
    """After every single step of the replacing a reader finds the old results or the new."""
    old, publish = snapshot(finished), ResultFolder.publish

    def kill(function):
        def step(*args, **options):
            calls.append(args)
            if len(calls) == number:
                raise KeyboardInterrupt
            return function(*args, **options)

        return step

    def publish_then_die(folder):
        with monkeypatch.context() as patch:
            if Stage(folder.unfinished).path.exists():
                patch.setattr(replace, "_exchange", kill(replace._exchange))
                for module, name in ((os, "replace"), (shutil, "rmtree"), (Path, "unlink")):
                    patch.setattr(module, name, kill(getattr(module, name)))
            publish(folder)

    calls: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(ResultFolder, "publish", publish_then_die)
        try:
            setting.evaluate(batch_size=3)
        except KeyboardInterrupt:
            assert len(calls) == number
    found = {name: content for name, content in snapshot(finished).items() if name[0] != "."}
    if found != old:
        assert json.loads(found["results.json"])["provenance"]["batch_size"] == 3
        assert found["predictions.jsonl"] != old["predictions.jsonl"]
        assert "stage.json" in found
    monkeypatch.setattr(checkpoint, "load_tuned", None)  # every answer is there
    setting.evaluate(batch_size=3)
    assert setting.results()["provenance"]["batch_size"] == 3
    assert Stage(finished).config().evaluation.batch_size == 3
    assert (finished / "grades.json").exists()
    assert not (setting.run.root / "unfinished").exists()


def test_a_replacing_that_was_killed_is_completed_by_the_next_look(setting, finished, monkeypatch):
    """Also where the settings asked for are the old ones again."""
    old = setting.results()["metrics"]
    unfinished = ResultFolder.of(setting.run, "quickstart").unfinished
    replaced = unfinished.with_name("quickstart.replaced")
    replaced.parent.mkdir(parents=True)
    finished.rename(replaced)
    monkeypatch.setattr(checkpoint, "load_tuned", None)
    setting.evaluate()
    assert setting.results()["metrics"] == old
    assert (finished / "grades.json").exists()
