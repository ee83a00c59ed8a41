"""One finding per kind of file, and the index that remembers what was found."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.permissions import permissions_held

from prism_tune.config.sections import DataConfig
from prism_tune.data import image_index
from prism_tune.data.examination import examine_image
from prism_tune.data.image_index import index_images
from prism_tune.data.image_paths import ImageFolders
from prism_tune.data.records import open_pool
from prism_tune.run.folder import locked, write_atomic


def save(path, size=(8, 8), **options):
    path.parent.mkdir(exist_ok=True)
    Image.effect_noise(size, 50).convert("RGB").save(path, **options)
    return path


def truncate(path):
    save(path, (64, 64))
    path.write_bytes(path.read_bytes()[:-600])


def animate(path):
    frames = [Image.effect_noise((4, 2), 50) for _ in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def shade(path, span, mode="RGB"):
    """From 100 to 100 + span in one channel, 100 in the others."""
    image = Image.new("RGB", (8, 8), (100, 100, 100))
    image.putpixel((3, 5), (100, 100 + span, 100))
    image.convert(mode).save(path)


def draw_in_transparency(path):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (2, 2, 6, 6))
    image.save(path)


def leave(path):
    path.symlink_to("/etc/hostname")


FAULTY = {
    "sound.png": (save, ()),
    "photo.JPEG": (lambda path: save(path, format="JPEG"), ()),
    "no_suffix": (lambda path: save(path, format="PNG"), ()),
    "pipe.png": (os.mkfifo, ("image_unreadable",)),  # reading it would never end
    "wide.png": (lambda path: save(path, (161, 8)), ("image_aspect_ratio",)),
    "large.png": (lambda path: save(path, (13_378, 700)), ("image_aspect_ratio",)),  # padded
    "widest.png": (lambda path: save(path, (160, 8)), ()),
    "wrong.jpg": (lambda path: save(path, format="PNG"), ("image_wrong_type",)),
    "moving.gif": (animate, ("image_animated",)),
    "moving.png": (lambda p: animate(p.with_suffix(".gif")) or p.with_suffix(".gif").rename(p), (
        "image_wrong_type", "image_animated",
    )),
    "grey.png": (lambda path: shade(path, 0, "L"), ("image_blank",)),
    "nearly.png": (lambda path: shade(path, 3), ("image_blank",)),
    "faint.png": (lambda path: shade(path, 4), ()),
    "icon.png": (draw_in_transparency, ("image_blank",)),
    "short.jpg": (truncate, ("image_truncated",)),
    "page.jpg": (lambda path: path.write_text("<html>"), ("image_unreadable",)),
    "nothing.jpg": (lambda path: path.touch(), ("image_empty",)),
    "absent.jpg": (lambda path: None, ("image_missing",)),
    "link.png": (leave, ("image_outside",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
def test_findings(tmp_path, name):
    make, expected = FAULTY[name]
    make(tmp_path / name)
    assert tuple(r for r, _ in examine_image(ImageFolders(tmp_path), name).findings) == expected


def test_details_name_the_file_and_the_numbers(tmp_path):
    save(tmp_path / "a.jpg", (100, 4), format="PNG")
    Image.new("RGB", (8, 8), (200, 10, 0)).save(tmp_path / "red.png")
    (blank,) = examine_image(ImageFolders(tmp_path), "red.png").findings
    assert blank[1] == f"{tmp_path}/red.png: one colour all over, (200, 10, 0) in RGB"
    details = [detail for _, detail in examine_image(ImageFolders(tmp_path), "a.jpg").findings]
    assert details == [
        f"{tmp_path}/a.jpg: the content is PNG, the name says JPEG",
        f"{tmp_path}/a.jpg: 100 x 4 pixels, over 20:1",
    ]


def open_index(tmp_path, names, num_workers=0):
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "yes"}]
    records = [{"image": name, "conversations": turns} for name in names]
    (tmp_path / "pool.json").write_text(json.dumps(records))
    return open_pool(
        DataConfig(records=str(tmp_path / "pool.json"), num_workers=num_workers)
    ).image_index


@pytest.fixture
def read_files(monkeypatch):
    """The names of the files that are opened from here on."""
    names = []

    def watch(image_dir, name):
        names.append(name)
        return examine_image(image_dir, name)

    monkeypatch.setattr(image_index, "examine_image", watch)
    return names


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRISM_TUNE_CACHE", str(tmp_path / "cache"))


def test_only_what_changed_is_read_again(tmp_path, read_files):
    save(tmp_path / "a.png")
    truncate(tmp_path / "b.png")
    first = open_index(tmp_path, ["a.png", "b.png", "gone.png"])
    assert set(first.findings) == {"b.png", "gone.png"}
    assert set(first.hashes) == {"a.png", "b.png"}
    assert {name: reason for name, (reason, _) in first.faults.items()} == {
        "gone.png": "image_missing"
    }
    read_files.clear()
    save(tmp_path / "b.png")
    save(tmp_path / "c.png")
    second = open_index(tmp_path, ["a.png", "b.png", "c.png", "gone.png"])
    assert set(second.findings) == {"gone.png"}
    assert second.hashes["a.png"] == first.hashes["a.png"]
    assert second.hashes["b.png"] != first.hashes["b.png"]
    assert read_files == ["b.png", "c.png", "gone.png"]


def test_what_could_not_be_opened_is_tried_again(tmp_path, read_files):
    """Neither size nor time tell that a folder was opened, or a link's target allowed."""
    save(tmp_path / "elsewhere" / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images" / "b.png").hardlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").chmod(0)
    folders = ImageFolders(tmp_path / "images")
    with permissions_held():
        closed = index_images(folders, ["a.png", "b.png"], num_workers=0)
    assert [reason for reason, _ in closed.faults.values()] == ["image_outside", "image_unreadable"]
    (cache,) = image_index.cache_root().glob("images-*.parquet")
    kept = cache.stat().st_mtime_ns, cache.stat().st_ino
    with permissions_held():
        assert index_images(folders, ["a.png", "b.png"], num_workers=0) == closed
    assert (cache.stat().st_mtime_ns, cache.stat().st_ino) == kept  # nothing new to keep
    (tmp_path / "b.png").chmod(0o600)
    (tmp_path / "images" / "a.png").unlink()
    os.link(tmp_path / "elsewhere" / "a.png", tmp_path / "images" / "a.png")
    opened = index_images(folders, ["a.png", "b.png"], num_workers=0)
    assert opened.faults == {}
    read_files.clear()
    assert index_images(folders, ["a.png", "b.png"], num_workers=0) == opened
    assert read_files == []


def test_the_fingerprint_is_of_the_pictures_not_of_their_folder(tmp_path):
    names = ["a.png", "b.png", "gone.png"]
    save(tmp_path / "here" / "a.png")
    truncate(tmp_path / "here" / "b.png")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = (
        index_images(ImageFolders(tmp_path / folder), names, num_workers=0)
        for folder in ("here", "there")
    )
    assert here.fingerprint == there.fingerprint
    assert here.findings != there.findings  # their details name the file
    save(tmp_path / "there" / "gone.png")
    found = index_images(ImageFolders(tmp_path / "there"), names, num_workers=0)
    (tmp_path / "there" / "a.png").unlink()
    lost = index_images(ImageFolders(tmp_path / "there"), names, num_workers=0)
    assert len({here.fingerprint, found.fingerprint, lost.fingerprint}) == 3


def test_a_damaged_cache_is_made_anew(tmp_path, read_files, caplog):
    save(tmp_path / "a.png")
    first = open_index(tmp_path, ["a.png"])
    (cache,) = image_index.cache_root().glob("images-*.parquet")
    cache.write_bytes(cache.read_bytes()[:100])
    read_files.clear()
    with caplog.at_level("WARNING"):
        assert open_index(tmp_path, ["a.png"]) == first
    assert read_files == ["a.png"]
    assert f"{cache}: damaged" in caplog.text
    read_files.clear()
    assert open_index(tmp_path, ["a.png"]) == first
    assert read_files == []


def test_what_a_killed_process_has_read_is_kept(tmp_path, read_files, monkeypatch):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        save(tmp_path / name)
    monkeypatch.setattr(image_index, "_NAMES_PER_SAVE", 1)
    watched = image_index.examine_image

    def kill(image_dir, name):
        if name == "c.png":
            raise KeyboardInterrupt
        return watched(image_dir, name)

    monkeypatch.setattr(image_index, "examine_image", kill)
    with pytest.raises(KeyboardInterrupt):
        open_index(tmp_path, names)
    monkeypatch.setattr(image_index, "examine_image", watched)
    read_files.clear()
    assert set(open_index(tmp_path, names).hashes) == set(names)
    assert read_files == ["c.png"]


def test_the_more_images_are_known_the_rarer_are_all_of_them_written(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(30)]
    for name in names:
        save(tmp_path / name)
    monkeypatch.setattr(image_index, "_NAMES_PER_SAVE", 1)
    num_written = []

    def watch(path, content):
        num_written.append(pq.read_table(pa.BufferReader(content)).num_rows)
        write_atomic(path, content)

    monkeypatch.setattr(image_index, "write_atomic", watch)
    open_index(tmp_path, names)
    # At least a fourth of all are new; the last three are written at the end.
    assert num_written == [1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 30]


def test_what_cannot_be_opened_still_keeps_nobody_waiting(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    leave(tmp_path / "link.png")
    first = open_index(tmp_path, ["a.png", "link.png"])
    assert [reason for reason, _ in first.faults.values()] == ["image_outside"]
    monkeypatch.setattr(image_index, "locked", lambda *_: pytest.fail("waits for the lock"))
    assert open_index(tmp_path, ["a.png", "link.png"]) == first


def test_who_has_waited_reads_without_keeping_others_waiting(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    held, waiting, read_under_lock = threading.Lock(), [], []
    read_table = pq.read_table

    @contextmanager
    def watched_lock(path):
        with locked(path), held:
            yield

    def watched_read(*given, **options):
        read_under_lock.append(held.locked())
        return read_table(*given, **options)

    def examine(image_dir, name):
        """While another asks."""
        waiting.append(other.submit(index_images, image_dir, [name], num_workers=0))
        time.sleep(0.1)
        return examine_image(image_dir, name)

    monkeypatch.setattr(image_index, "locked", watched_lock)
    monkeypatch.setattr(image_index, "examine_image", examine)
    monkeypatch.setattr(pq, "read_table", watched_read)
    with ThreadPoolExecutor(1) as other:
        found = index_images(ImageFolders(tmp_path), ["a.png"], num_workers=0)
        (waited,) = waiting
        assert waited.result() == found
    assert read_under_lock == [False]


def test_processes_that_ask_together_read_each_file_once(tmp_path, read_files):
    names = [f"{number}.png" for number in range(8)]
    for name in names:
        save(tmp_path / name)
    with ThreadPoolExecutor(4) as runs:
        found = list(
            runs.map(lambda _: index_images(ImageFolders(tmp_path), names, num_workers=0), range(4))
        )
    assert found[1:] == found[:-1]
    assert sorted(read_files) == names


@pytest.mark.slow
def test_processes_find_what_one_process_finds(tmp_path, monkeypatch):
    names = ["a.png", "b.png", "gone.png", "c.png"]
    save(tmp_path / "a.png")
    truncate(tmp_path / "b.png")
    save(tmp_path / "c.png", format="JPEG")
    monkeypatch.setattr(image_index, "_FEWEST_FOR_PROCESSES", 1)
    parallel = open_index(tmp_path, names, num_workers=2)
    for cache in image_index.cache_root().glob("images-*"):
        cache.unlink()
    assert parallel == open_index(tmp_path, names)
    assert [f[0][0] for f in parallel.findings.values()] == [
        "image_truncated", "image_missing", "image_wrong_type",
    ]  # fmt: skip
