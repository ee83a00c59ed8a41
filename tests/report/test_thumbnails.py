"""Small pictures: of sound images, of broken ones, and of what must not be opened."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from types import SimpleNamespace

import pytest
from PIL import Image

from prism_tune.data.image_paths import ImageFolders
from prism_tune.report import thumbnails
from prism_tune.report.thumbnails import draw_thumbnail, write_thumbnails


class FakePool:
    """Rows of image names over a folder."""

    def __init__(self, image_dir, *names):
        self.image_folders = ImageFolders(image_dir)
        self._names = names

    def images(self, row):
        return self._names[row]


def run_of(pool):
    return SimpleNamespace(pool=pool, records=SimpleNamespace(uid=lambda row: f"uid{row}"))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def opened(content):
    return Image.open(io.BytesIO(content)).convert("RGB")


def bomb(width, height):
    """A PNG that says it is huge."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_a_large_image_becomes_a_small_one_of_the_same_shape(images):
    Image.new("RGB", (1200, 600), (200, 30, 40)).save(images / "a.png")
    picture = opened(draw_thumbnail(FakePool(images, ["a.png"]), 0))
    assert picture.size == (192, 96)
    assert picture.getpixel((90, 40)) == pytest.approx((200, 30, 40), abs=6)


def test_a_photograph_stands_upright(images):
    """Orientation 6: turn clockwise to view."""
    picture = Image.new("RGB", (400, 200), "black")
    picture.paste((255, 0, 0), (0, 0, 100, 200))  # left; on top when turned
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(images / "a.jpg", exif=exif)
    seen = opened(draw_thumbnail(FakePool(images, ["a.jpg"]), 0))
    assert seen.size == (96, 192)
    assert seen.getpixel((48, 10))[0] > 200
    assert seen.getpixel((48, 180))[0] < 50


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixels(images, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.new(mode, (300, 300)).save(images / name)
    assert opened(draw_thumbnail(FakePool(images, [name]), 0)).size == (192, 192)


def test_paths_are_by_uid_and_a_shared_image_is_written_once(images, tmp_path):
    Image.new("RGB", (50, 50), "red").save(images / "a.png")
    Image.new("RGB", (50, 50), "blue").save(images / "b.png")
    pool = FakePool(images, ["a.png"], [], ["b.png", "a.png"], ["a.png"])
    paths = write_thumbnails(run_of(pool), [0, 1, 2, 3], tmp_path / "page")
    assert paths.keys() == {"uid0", "uid2", "uid3"}
    assert paths["uid0"] == paths["uid3"] != paths["uid2"]
    assert len(list((tmp_path / "page" / "thumbs").iterdir())) == 2
    assert paths["uid2"][1] == paths["uid0"][0]
    blue = Image.open(tmp_path / "page" / paths["uid2"][0]).convert("RGB")
    assert blue.getpixel((25, 25))[2] > 200


@pytest.mark.slow
def test_many_images_are_drawn_by_processes_in_their_order(images, tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "_FEWEST_FOR_PROCESSES", 1)
    for level in range(0, 250, 50):
        Image.new("L", (40, 40), level).save(images / f"{level}.png")
    pool = FakePool(images, *([f"{level}.png"] for level in range(0, 250, 50)))
    paths = write_thumbnails(run_of(pool), range(5), tmp_path)
    seen = [
        Image.open(tmp_path / paths[f"uid{n}"][0]).convert("L").getpixel((20, 20)) for n in range(5)
    ]
    assert seen == pytest.approx([0, 50, 100, 150, 200], abs=4)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.png", None, "image_missing"),
        ("empty.jpg", b"", "image_empty"),
        ("page.png", b"<html></html>", "image_unreadable"),
        ("bomb.png", bomb(60_000, 60_000), "image_bomb"),
        ("large.png", bomb(6_000, 6_000), "image_bomb"),
        ("cut.png", bomb(300, 300), "image_truncated"),
        ("../outside.png", None, "image_outside"),
        ("/etc/passwd", None, "image_outside"),
        ("a\0b.png", None, "image_outside"),
        ("link.png", None, "image_outside"),
    ],
)
def test_what_cannot_be_shown_becomes_a_picture_of_the_reason(
    images, tmp_path, name, content, reason
):
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    (images / "link.png").symlink_to(tmp_path / "outside.png")
    if content is not None:
        (images / name).write_bytes(content)
    paths = write_thumbnails(run_of(FakePool(images, [name])), [0], tmp_path)
    assert paths == {"uid0": (f"thumbs/{reason}.webp",)}
    assert Image.open(tmp_path / paths["uid0"][0]).size == (192, 144)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
def test_damaged_files_never_raise(images, suffix):
    """Bytes of a sound file turned at random, forty times."""
    drawn = random.Random(suffix)
    Image.effect_noise((64, 48), 60).convert("RGB").save(images / f"sound.{suffix}")
    sound = (images / f"sound.{suffix}").read_bytes()
    for _ in range(40):
        content = bytearray(sound)
        for _ in range(drawn.randint(1, 30)):
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        (images / "a").write_bytes(content[: drawn.randint(20, len(content))])
        assert opened(draw_thumbnail(FakePool(images, ["a"]), 0)).width <= 192


@pytest.mark.parametrize("name", ["x" * 5000, "loop/a.png", ".", "folder", "pipe"])
def test_names_that_are_no_files(images, name):
    (images / "loop").symlink_to(images / "loop")
    (images / "folder").mkdir()
    os.mkfifo(images / "pipe")
    assert opened(draw_thumbnail(FakePool(images, [name]), 0)).size == (192, 144)
