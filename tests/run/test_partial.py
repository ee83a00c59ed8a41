"""What a killed process leaves of a file that it wrote: gone with the next that writes there."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import time

import pyarrow as pa
import pytest

from prism_tune.data.embedded_images import EmbeddedImages
from prism_tune.data.files.formats import write_parquet
from prism_tune.data.layouts.image_values import EMBEDDED, name_content
from prism_tune.run import partial
from prism_tune.run.folder import write_atomic
from prism_tune.run.partial import partial_file


@pytest.fixture(autouse=True)
def _next_command(monkeypatch):
    monkeypatch.setattr(partial, "_looked_into", set())


def write_table(path):
    write_parquet(path, pa.schema([("x", pa.int64())]), [pa.table({"x": [1]})])


def write_and_wait(path, begun):
    with partial_file(path) as temporary:
        temporary.write_text("a part")
        begun.set()
        signal.pause()


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_stays(tmp_path):
    processes = multiprocessing.get_context("fork")
    begun = processes.Event()
    writer = processes.Process(target=write_and_wait, args=(tmp_path / "a.json", begun))
    writer.start()
    assert begun.wait(20)
    write_atomic(tmp_path / "b.json", "whole")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[1:] == ["b.json"]
    assert names[0].startswith(".a.json.")
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    partial._looked_into.clear()  # the next command
    write_atomic(tmp_path / "c.json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "c.json"]


@pytest.mark.parametrize("write", [lambda path: write_atomic(path, "x"), write_table])
def test_whoever_writes_there_removes_it_and_nothing_of_others(tmp_path, write):
    others = [".config.settings", ".prism_tune", "a.json.prism_tune", ".b.partial"]
    for name in (*others, ".scores.json.ab12cd34.prism_tune"):
        (tmp_path / name).write_text("x")
    write(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "new"}
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("has_locks", [True, False])
def test_where_locks_do_not_tell_what_was_written_within_the_hour_stays(
    tmp_path, monkeypatch, has_locks
):
    """Its writer may live on another node; the file system's clock counts, not this machine's."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "no locks here")

    if has_locks:  # but of a file system that other nodes see as well
        monkeypatch.setattr(partial, "is_local", lambda path: False)
    else:
        monkeypatch.setattr(fcntl, "flock", refuse)
    now = time.time()
    for name, minutes in (("young", 50), ("old", 70)):
        left = tmp_path / f".{name}.ab12cd34.prism_tune"
        left.write_text("x")
        os.utime(left, (now - 60 * minutes, now - 60 * minutes))
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    write_atomic(tmp_path / "new", "x")
    assert {path.name for path in tmp_path.iterdir()} == {".young.ab12cd34.prism_tune", "new"}


def test_images_in_the_cache_leave_nothing_either(tmp_path):
    image = name_content(b"content")
    folder = tmp_path / image.name.removeprefix(EMBEDDED)[:2]
    folder.mkdir()
    (folder / ".x.ab12cd34.prism_tune").write_text("x")
    EmbeddedImages(tmp_path).keep(image)
    assert [path.read_bytes() for path in folder.iterdir()] == [b"content"]


def test_a_file_that_was_taken_for_left_over_is_made_anew(tmp_path, monkeypatch):
    """Between its making and its being held somebody removed it."""
    hold, taken = partial._hold, []

    def late(descriptor):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        return hold(descriptor)

    monkeypatch.setattr(partial, "_hold", late)
    write_atomic(tmp_path / "a.json", "whole")
    assert len(taken) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
