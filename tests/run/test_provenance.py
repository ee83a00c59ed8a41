"""Which code computed something: kept with every finished stage."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import version

import pytest

from prism_tune import __version__
from prism_tune.config.sections import Config
from prism_tune.run import provenance
from prism_tune.run.provenance import describe_software, find_commit
from prism_tune.run.stage import Stage


def git(root, *arguments):
    """Without the settings of whoever runs the tests: signatures, hooks."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    command = ["git", "-C", str(root), *identity, *arguments]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "prism_tune").mkdir(parents=True)
    (root / "prism_tune" / "code.py").write_text("x = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_the_commit_checked_out(repository):
    assert find_commit(repository) == git(repository, "rev-parse", "HEAD")


def test_changed_code_is_said_and_other_changes_are_not(repository):
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "notes.txt").write_text("notes")
    assert find_commit(repository) == commit
    (repository / "prism_tune" / "new.py").write_text("y = 2\n")
    assert find_commit(repository) == f"{commit} (changed)"
    git(repository, "config", "status.showUntrackedFiles", "no")
    assert find_commit(repository) == f"{commit} (changed)"


def test_somebody_elses_repository_around_an_installed_package_is_not_taken(repository):
    (repository / "site-packages").mkdir()
    assert find_commit(repository / "site-packages") is None


def test_without_git_there_is_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_commit(repository) is None


def test_every_finished_stage_says_by_what_it_was_made(tmp_path):
    stage = Stage(tmp_path / "training")
    config = {"name": "trial", "model": {"path": "m"}, "data": {"records": "pool.json"}}
    stage.finish({"seed": 1}, config=Config.model_validate(config))
    software = stage.require("train")["software"]
    assert software == describe_software()
    assert software["prism_tune"] == __version__
    assert software["packages"]["torch"] == version("torch")


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no_such_package"))
    found = describe_software.__wrapped__()
    assert found["packages"] == {"numpy": version("numpy")}
