"""Looking never changes what a run says: only a stage that really runs writes into its folder."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml
from support.report_pages import write_questions
from support.tiny_runs import tiny_config
from typer.testing import CliRunner

from prism_tune.cli.app import app

pytestmark = pytest.mark.slow  # seconds each

LOGGER = logging.getLogger("prism_tune")


def invoke(*arguments: str):
    """A verb, in this process; its logging is taken down afterwards."""
    propagate = LOGGER.propagate
    done = CliRunner().invoke(app, arguments)
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    LOGGER.propagate = propagate
    return done


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder: when it was written, and what it holds."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture(scope="module")
def config(tiny_llava_dir, drawn_pool, tmp_path_factory) -> Path:
    """The config of a run that is selected, tuned, evaluated and audited."""
    folder = tmp_path_factory.mktemp("looking")
    tree = tiny_config(folder, tiny_llava_dir, drawn_pool, write_questions(folder))
    tree["selection"]["budget"] = 0.5
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    for verb in ("audit", "select", "train", "evaluate"):
        assert invoke(verb, str(path)).exit_code == 0, verb
    return path


@pytest.fixture
def untouched(config):
    """Nothing under runs/ may have changed when the test ends."""
    runs = config.parent / "runs"
    before = snapshot(runs)
    yield runs
    after = snapshot(runs)
    assert sorted(before.keys() ^ after.keys()) == []
    assert [name for name in before if before[name] != after[name]] == []


LOOKS = {
    "preview": ["preview", "CONFIG"],
    "preview of another selection": ["preview", "CONFIG", "selection.scorer=length", "budget=0.9"],
    "show": ["show", "CONFIG", "seed=7"],
    "data check": ["data", "check", "CONFIG"],
    "audit, skipped": ["audit", "CONFIG"],
    "select, skipped": ["select", "CONFIG"],
    "train, skipped": ["train", "CONFIG"],
    "evaluate, skipped": ["evaluate", "CONFIG"],
    "preview of a run that is not there": ["preview", "CONFIG", "name=fresh"],
}
FAILURES = {
    "a mistyped key": ["train", "CONFIG", "training.hff.seed=1"],
    "an unknown scorer": ["select", "CONFIG", "selection.scorer=prsim"],
    "a pool that is not there": ["select", "CONFIG", "data.records=gone.json"],
    "a model that is not there": ["select", "CONFIG", "model.path=/gone", "name=fresh"],
    "no selection to train on": ["train", "CONFIG", "name=fresh"],
    "an unknown benchmark": ["evaluate", "CONFIG", "evaluation.benchmarks=[pop]"],
    "questions that are not there": [
        "evaluate",
        "CONFIG",
        "evaluation.data.quickstart.annotations=gone.json",
    ],
    "a pool to audit that is not there": ["audit", "CONFIG", "data.records=gone.json"],
    "an audit of a new name": ["audit", "CONFIG", "data.records=gone.json", "name=fresh"],
}


def fill(arguments: list[str], config: Path) -> list[str]:
    return [str(config) if item == "CONFIG" else item for item in arguments]


@pytest.mark.parametrize("look", LOOKS)
def test_looking_leaves_no_trace(look, config, untouched):
    done = invoke(*fill(LOOKS[look], config))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("failure", FAILURES)
def test_what_fails_before_it_begins_leaves_no_trace(failure, config, untouched):
    assert invoke(*fill(FAILURES[failure], config)).exit_code != 0


@pytest.mark.parametrize(("inside", "folder"), [("", "."), ("training", ".."), ("", "../tiny")])
def test_the_run_folder_that_one_stands_in(config, untouched, monkeypatch, inside, folder):
    monkeypatch.chdir(untouched / "tiny" / inside)
    status = invoke("status", folder)
    assert status.exit_code == 0, status.output
    assert "| tiny | finished |" in status.output
    answers = invoke("answers", folder)
    assert answers.exit_code == 0, answers.output


def test_a_report_writes_its_own_folder_only(config, untouched, tmp_path):
    done = invoke("report", str(untouched / "tiny"), "--output", str(tmp_path / "page"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page" / "index.html").exists()


@pytest.mark.parametrize(
    ("verb", "folder"),
    [("select", "selection"), ("train", "training"), ("evaluate", "evaluation/quickstart")],
)
def test_a_stages_own_config_is_finished_already(verb, folder, config, untouched, tmp_path):
    """What it ran with is in its folder, and runs again from there."""
    saved = untouched / "tiny" / folder / "config.yaml"
    log = (untouched / "tiny" / "log.txt").read_bytes()
    done = invoke(verb, str(saved))
    assert done.exit_code == 0, done.output
    assert "already finished with the same inputs" in " ".join(done.output.split())
    assert (untouched / "tiny" / "log.txt").read_bytes() == log
