"""What goes to W&B as an artifact, by a stand-in for the library."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from prism_tune.config.sections import TrackingConfig
from prism_tune.run.folder import RunDir
from prism_tune.run.tracking import log_artifact


@pytest.fixture
def logged(monkeypatch):
    """Everything that W&B is told."""
    told = SimpleNamespace(opened=[], files=[], artifacts=[], summary={})

    class Run(nullcontext):
        def log_artifact(self, artifact):
            told.artifacts.append(artifact)

        summary = told.summary

    class Artifact(SimpleNamespace):
        def __init__(self, name, type, metadata):
            super().__init__(name=name, type=type, metadata=metadata)

        def add_file(self, path):
            told.files.append(path)

        def add_dir(self, path, name):
            told.files.append((path, name))

    def init(**options):
        told.opened.append(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Artifact=Artifact))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return told


def test_files_go_as_an_artifact_without_secrets_and_offline(logged, tmp_path):
    run = RunDir(tmp_path / "mine")
    (run.root / "report").mkdir(parents=True)
    manifest = run.root / "manifest.json"
    manifest.write_text("{}")
    described = {"subset_sha256": "ab", "hub_token": "secret-of-mine"}
    tracking = TrackingConfig(wandb=True, project="p")
    log_artifact(tracking, run, "evaluation-pope", [manifest, run.root / "report"], described)
    (opened,) = logged.opened
    assert (opened["mode"], opened["group"], opened["job_type"]) == (
        "offline",
        "mine",
        "evaluation",
    )
    assert logged.files == [str(manifest), (str(run.root / "report"), "report")]
    (artifact,) = logged.artifacts
    assert (artifact.name, artifact.type) == ("mine-evaluation-pope", "evaluation")
    assert artifact.metadata == {"subset_sha256": "ab", "hub_token": "<redacted>"}
    assert logged.summary == artifact.metadata


def test_nothing_goes_where_it_was_not_asked_for(logged, tmp_path):
    log_artifact(TrackingConfig(), RunDir(tmp_path), "selection", [], {})
    assert logged.opened == []
