"""One finding per kind of file, and the memory of what was inspected."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from prism_tune.config.sections import DataConfig
from prism_tune.data import image_inspections
from prism_tune.data.image_inspection import inspect_image
from prism_tune.data.image_inspections import inspect_images
from prism_tune.data.records import open_pool


def save(path, size=(8, 8), **options):
    Image.effect_noise(size, 50).convert("RGB").save(path, **options)
    return path


def truncate(path):
    save(path, (64, 64))
    path.write_bytes(path.read_bytes()[:-600])


def animate(path):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def leave(path):
    path.symlink_to("/etc/hostname")


FAULTY = {
    "sound.png": (save, ()),
    "photo.JPEG": (lambda path: save(path, format="JPEG"), ()),
    "no_suffix": (lambda path: save(path, format="PNG"), ()),
    "pipe.png": (os.mkfifo, ("image_unreadable",)),  # reading it would never end
    "wide.png": (lambda path: save(path, (161, 8)), ("image_aspect_ratio",)),
    "widest.png": (lambda path: save(path, (160, 8)), ()),
    "wrong.jpg": (lambda path: save(path, format="PNG"), ("image_wrong_type",)),
    "moving.gif": (animate, ("image_animated",)),
    "moving.png": (lambda p: animate(p.with_suffix(".gif")) or p.with_suffix(".gif").rename(p), (
        "image_wrong_type", "image_animated",
    )),
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
    assert tuple(r for r, _ in inspect_image(tmp_path, name).findings) == expected


def test_details_name_the_file_and_the_numbers(tmp_path):
    save(tmp_path / "a.jpg", (100, 4), format="PNG")
    details = [detail for _, detail in inspect_image(tmp_path, "a.jpg").findings]
    assert details == [
        f"{tmp_path}/a.jpg: the content is PNG, the name says JPEG",
        f"{tmp_path}/a.jpg: 100 x 4 pixels, over 20:1",
    ]


def open_images(tmp_path, names, num_workers=0):
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "yes"}]
    records = [{"image": name, "conversations": turns} for name in names]
    (tmp_path / "pool.json").write_text(json.dumps(records))
    pool = open_pool(DataConfig(records=str(tmp_path / "pool.json")))
    return inspect_images(pool.image_dir, pool.unique_images(), num_workers=num_workers)


def test_only_what_changed_is_decoded_again(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    truncate(tmp_path / "b.png")
    assert set(open_images(tmp_path, ["a.png", "b.png", "gone.png"])) == {"b.png", "gone.png"}
    decoded = []

    def watch(image_dir, name):
        decoded.append(name)
        return inspect_image(image_dir, name)

    monkeypatch.setattr(image_inspections, "inspect_image", watch)
    save(tmp_path / "b.png")
    save(tmp_path / "c.png")
    assert set(open_images(tmp_path, ["a.png", "b.png", "c.png", "gone.png"])) == {"gone.png"}
    assert decoded == ["b.png", "c.png", "gone.png"]


def test_processes_find_what_one_process_finds(tmp_path, monkeypatch):
    names = ["a.png", "b.png", "gone.png", "c.png"]
    save(tmp_path / "a.png")
    truncate(tmp_path / "b.png")
    save(tmp_path / "c.png", format="JPEG")
    monkeypatch.setattr(image_inspections, "_FEWEST_FOR_PROCESSES", 1)
    parallel = open_images(tmp_path, names, num_workers=2)
    for cache in image_inspections.cache_root().glob("images-*"):
        cache.unlink()
    assert parallel == open_images(tmp_path, names)
    assert [f[0][0] for f in parallel.values()] == [
        "image_truncated", "image_missing", "image_wrong_type",
    ]  # fmt: skip
