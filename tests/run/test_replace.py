"""A reader finds the old folder or the new one, whichever step of the replacing is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from prism_tune.run import replace
from prism_tune.run.replace import replace_folder

OLD = {"stage.json": "old", "kept/note.txt": "mine", "results.json": "old", "own-1": "old"}
NEW = {"stage.json": "new", "kept/more.txt": "new", "results.json": "new", "log.txt": "new"}
MERGED = {**NEW, "kept/note.txt": "mine"}
NUM_STEPS = 12


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def read(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".replaces"
    }


def stop_before(patch, number, *, exchange):
    """A kill before the n-th step that changes anything on disk."""
    steps = []

    def killable(function):
        def step(*args, **options):
            steps.append(args)
            if len(steps) == number:
                raise KeyboardInterrupt
            return function(*args, **options)

        return step

    exchanging = killable(replace._exchange) if exchange else lambda first, second: False
    patch.setattr(replace, "_exchange", exchanging)
    patch.setattr(os, "replace", killable(os.replace))
    patch.setattr(shutil, "rmtree", killable(shutil.rmtree))
    patch.setattr(Path, "touch", killable(Path.touch))
    patch.setattr(Path, "unlink", killable(Path.unlink))
    return steps


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("number", range(1, NUM_STEPS))
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path, monkeypatch, number, exchange):
    old, new = tmp_path / "results", tmp_path / "work"
    fill(old, OLD)
    fill(new, NEW)
    with monkeypatch.context() as patch:
        steps = stop_before(patch, number, exchange=exchange)
        try:
            replace_folder(new, old, own=["own-*"])
        except KeyboardInterrupt:
            assert len(steps) == number
        else:
            assert len(steps) < number
    found = read(old)
    assert found in (OLD, NEW, MERGED) or (not exchange and found == {})
    replace_folder(new, old, own=["own-*"])
    assert read(old) == MERGED
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert not (old / ".replaces").exists()


def test_linux_exchanges_in_one_step(tmp_path):
    fill(tmp_path / "a", {"x": "1"})
    fill(tmp_path / "b", {"y": "2"})
    assert replace._exchange(tmp_path / "a", tmp_path / "b")
    assert read(tmp_path / "a") == {"y": "2"}
    assert not replace._exchange(tmp_path / "a", tmp_path / "nowhere")


def test_what_has_not_finished_replaces_nothing(tmp_path):
    fill(tmp_path / "results", OLD)
    fill(tmp_path / "work", {"results.json": "half"})
    replace_folder(tmp_path / "work", tmp_path / "results")
    assert read(tmp_path / "results") == OLD
    assert read(tmp_path / "work") == {"results.json": "half"}


def test_the_first_folder_moves_in(tmp_path):
    fill(tmp_path / "work", NEW)
    replace_folder(tmp_path / "work", tmp_path / "place" / "results")
    assert read(tmp_path / "place" / "results") == NEW
    replace_folder(tmp_path / "work", tmp_path / "place" / "results")
    assert not (tmp_path / "work").exists()


def test_what_a_link_leads_to_is_not_touched(tmp_path):
    """Results on another disk, or another run's."""
    old, new, elsewhere = tmp_path / "results", tmp_path / "work", tmp_path / "elsewhere"
    fill(elsewhere, OLD)
    old.symlink_to(elsewhere)
    fill(new, NEW)
    replace_folder(new, old, own=("stage.json",))
    assert read(elsewhere) == OLD
    assert read(old) == NEW
    assert not new.is_symlink()
    assert not old.is_symlink()
