"""Mistakes and damaged files, each through the real command line: a code, a phrase, no traceback.

`mistakes.yaml` is the table. A row is a verb's overrides, or a file and what happens to it, with
the code and the phrase that has to stand in the message. Rows of a file name the verb; the code 0
is of what is made again by itself.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from support.permissions import read_only
from support.tiny import draw_pool, save_tiny_llava
from support.tiny_encoders import save_encoder
from support.tiny_runs import draw_questions, tiny_config
from support.torture_cases import save_text_model

from prism_tune.cli import app
from prism_tune.cli.options import end_with_errors


def _as_words(content):
    """Every value of an object, or of a list's objects, another kind than it was."""
    if isinstance(content, list):
        return [_as_words(item) for item in content]
    return dict.fromkeys(content, "x")


def _set_value(path, key, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), key: yaml.safe_load(value)}))


TABLE = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text())
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "junk": lambda path: path.write_bytes(b"\x93junk\xff\x00" * 20),
    "object": lambda path: path.write_bytes(b"{}"),
    "list": lambda path: path.write_bytes(b"[]"),
    "null": lambda path: path.write_bytes(b"null"),
    "rows": lambda path: path.write_bytes(b"[1, 2]"),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "words": lambda path: path.write_text(json.dumps(_as_words(json.loads(path.read_text())))),
    "thin": lambda path: Image.new("RGB", (1, 30_000)).save(path),
    "pickled": lambda path: (
        path.unlink(),
        path.with_suffix(".bin").write_bytes(pickle.dumps({"a": os.system})),
    ),
    "gone": lambda path: path.unlink(),
    "loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "full": lambda path: (path.unlink(), path.symlink_to("/dev/full")),
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A place with a model, a pool, questions and a finished run; below it `cache` is its own."""
    folder = tmp_path_factory.mktemp("finished") / "place"
    folder.mkdir()
    save_tiny_llava(folder / "model")
    save_encoder("clip", folder / "tower")
    save_text_model(folder / "text")
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
    given += [override.replace("HERE", str(tmp_path)) for override in overrides.split(" ")]
    (tmp_path / "file").touch()
    config = str(finished / "config.yaml")
    check(capfd, call(monkeypatch, "train", config, *given), code, says)


@pytest.mark.parametrize("row", TABLE["files"], ids=lambda row: " ".join(map(str, row[:3])))
def test_files(place, tmp_path, monkeypatch, capfd, row):
    pattern, damage, verb, code, says = row
    paths = sorted(place.glob(pattern))
    assert paths
    for path in paths:
        if "=" in damage:
            _set_value(path, *damage.split("="))
        else:
            DAMAGES[damage](path)
    run, config = str(place / "runs" / "tiny"), str(place / "config.yaml")
    arguments = {
        "export": ("export", run, "--to", str(tmp_path / "exported")),
        "report": ("report", run),
        "status": ("status", run),
        "plan": ("plan", config),
        "trl": ("subset", "export", run, "--to", str(tmp_path / "trl"), "--as", "trl"),
        "tables": ("tables", "main", "--runs", run),
        "subset": ("subset", "export", run, "--to", str(tmp_path / "subset.parquet")),
        "anew": ("train", config, "name=anew", "training.records=pool"),
        "again": ("select", config, "name=again"),
        "anew evaluate": ("evaluate", config, "--force"),
        "answers": ("answers", run),
        "assemble": (
            *("assemble", "--vision-tower", str(place / "tower"), "--template", "chatml"),
            *("--language-model", str(place / "text"), "--to", str(tmp_path / "joined")),
        ),
        "clip": (
            *("select", config, "name=again", "selection.scorer=clip_score"),
            f"selection.options.model={place / 'tower'}",
        ),
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


SMALL = 20_000


def test_a_file_may_not_grow(place, monkeypatch, capfd):
    """As on a full disk."""
    monkeypatch.chdir(place)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, before[1]))
    try:
        code = call(monkeypatch, "export", "runs/tiny", "--to", "exported")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    check(capfd, code, 1, "a file may not grow so large here")


IN_A_LIBRARY = """
import sys
from prism_tune import load_config, train
train(load_config(sys.argv[2], sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (("-m", "prism_tune"), "a process that reads images was lost"),
        (("-c", IN_A_LIBRARY), "exited unexpectedly"),
    ],
    ids=["command line", "library"],
)
def test_what_a_worker_cannot_hand_over_ends_the_training(place, program, says):
    """As with a full /dev/shm: torch's queue would only print it, and be waited for for ever."""
    arguments = ["config.yaml", "name=w", "training.records=pool", "data.num_workers=1"]
    ended = subprocess.run(
        [sys.executable, *program, "train", *arguments],
        cwd=place,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert "cannot hand over what it has read" in ended.stderr
    assert says in ended.stderr
    assert ("Traceback" in ended.stderr) == (program[0] == "-c")


@pytest.mark.parametrize("verb", ["audit", "select", "train", "evaluate"])
def test_a_cache_that_may_only_be_read_serves_what_is_in_it(place, monkeypatch, capfd, verb):
    """A cluster's, filled by somebody else; images that have changed are read again each time."""
    os.utime(place / "pool/images/0.png", (1, 1))
    again = [] if verb == "evaluate" else ["name=again", "training.records=pool"]
    with read_only(place / "cache"):
        code = call(monkeypatch, verb, str(place / "config.yaml"), *again)
    check(capfd, code, 0, "cannot be kept (Permission denied)" if verb != "evaluate" else "")
