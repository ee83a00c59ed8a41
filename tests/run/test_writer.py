"""One writer a run folder: a second command is told who is at work, and changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prism_tune.errors import UserError
from prism_tune.run import writer
from prism_tune.run.folder import RunDir
from prism_tune.run.writer import find_writer, one_writer, only_writer, writer_file

HOLD = """
import sys, time
from pathlib import Path
from prism_tune.run.folder import RunDir
from prism_tune.run.writer import only_writer
with only_writer(RunDir(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    """A process that is at work in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.slow
def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    run = RunDir(tmp_path / "runs" / "one")
    process = hold(run.root)
    before = writer_file(run).read_bytes()
    with (
        pytest.raises(UserError, match=rf"process {process.pid} of .* is writing there"),
        only_writer(run),
    ):
        pass
    assert writer_file(run).read_bytes() == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    with only_writer(run):  # what a kill leaves holds nobody up
        assert json.loads(writer_file(run).read_text())["pid"] == os.getpid()
    assert not writer_file(run).exists()


def test_no_trace_is_left_where_nothing_was_written(tmp_path):
    run = RunDir(tmp_path / "runs" / "one")
    with only_writer(run):
        assert writer_file(run).exists()
    assert list(tmp_path.iterdir()) == []


def test_from_inside_the_folder_too(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with only_writer(RunDir(Path())):
        assert (tmp_path / ".one.writer.json").exists()
        assert find_writer(RunDir(tmp_path / "one")) is not None
        with (
            pytest.raises(UserError, match="this process is at work there already"),
            only_writer(RunDir(tmp_path / "one")),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_within_one_process_too(tmp_path):
    run = RunDir(tmp_path / "one")

    @one_writer
    def stage(config, run):
        with only_writer(run):
            raise AssertionError("two writers")

    with pytest.raises(UserError, match="this process is at work there already"):
        stage(None, run)
    with only_writer(run):
        pass


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder that names a process of another host, on a system whose locks say nothing."""
    monkeypatch.setattr(writer, "RENEWED_SECONDS", 0.1)
    monkeypatch.setattr(writer, "is_local", lambda path: False)
    run = RunDir(tmp_path / "one")
    holder = {"host": "node-7", "pid": 41, "started": "5", "user": "ann", "since": "noon"}
    writer_file(run).write_text(json.dumps({**holder, "command": "prism-tune train"}))
    return run


def test_the_name_of_a_process_elsewhere_that_shows_no_life_is_passed_over(elsewhere):
    begin = time.monotonic()
    with only_writer(elsewhere):
        assert time.monotonic() - begin >= 0.3
        assert json.loads(writer_file(elsewhere).read_text())["pid"] == os.getpid()


def test_a_process_elsewhere_that_lives_holds_it(elsewhere, monkeypatch):
    def renewed(seconds):
        os.utime(writer_file(elsewhere))

    monkeypatch.setattr(writer.time, "sleep", renewed)
    with (
        pytest.raises(UserError, match=r"process 41 of ann on node-7, since noon \(prism-tune"),
        only_writer(elsewhere),
    ):
        pass
    assert json.loads(writer_file(elsewhere).read_text())["pid"] == 41


def test_a_number_that_is_another_processes_by_now(tmp_path):
    run = RunDir(tmp_path / "one")
    with only_writer(run):
        kept = json.loads(writer_file(run).read_text())
    writer_file(run).write_text(json.dumps({**kept, "started": "1"}))
    with only_writer(run):
        pass


@pytest.mark.parametrize("changed", [{"pid": "a\0b"}, {"pid": ["1"]}, {"pid": None}, {"host": 3}])
def test_a_lock_that_is_not_as_it_was_written(tmp_path, changed):
    run = RunDir(tmp_path / "one")
    with only_writer(run):
        kept = json.loads(writer_file(run).read_text())
    writer_file(run).write_text(json.dumps({**kept, **changed}))
    find_writer(run)
    with only_writer(run):
        pass


def test_looking_for_a_writer_waits_for_nothing(tmp_path):
    run = RunDir(tmp_path / "one")
    os.mkfifo(writer_file(run))
    assert find_writer(run) is None


def test_a_lock_is_not_written_through_a_link(tmp_path):
    run, mine = RunDir(tmp_path / "one"), tmp_path / "mine.txt"
    mine.write_text("mine")
    writer_file(run).symlink_to(mine)
    with (
        pytest.raises(UserError, match="a link; the lock of this run is written there"),
        only_writer(run),
    ):
        pass
    assert mine.read_text() == "mine"
