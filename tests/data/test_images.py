from __future__ import annotations

import hashlib
import struct
import zlib

import pytest
from PIL import Image

from prism_tune.data.examination import examine_image
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import open_image


def save(path, size=(4, 2), mode="RGB", colour=(255, 0, 0), **options):
    Image.new(mode, size, colour).save(path, **options)
    return path


def test_open_gives_rgb(tmp_path):
    image = open_image(save(tmp_path / "a.png", mode="RGBA", colour=(1, 2, 3, 0)))
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 2), (1, 2, 3))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(save(tmp_path / "a.jpg", exif=exif)).size == (2, 4)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_missing(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such image file") as error:
        open_image(tmp_path / "gone.png")
    assert error.value.reason == "image_missing"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.jpg", "image_truncated"),
        ("a.png", "image_truncated"),
        ("a.webp", "image_unreadable"),  # its decoder wants the whole file at once
    ],
)
def test_truncated(tmp_path, name, reason):
    path = tmp_path / name
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(ImageError, match=f"{name}: (it begins|cannot be read) as an") as error:
        open_image(path)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "image_empty"), (b"<html>not found</html>", "image_unreadable")],
)
def test_not_an_image(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.jpg: (the file has 0|cannot be read)") as error:
        open_image(path)
    assert error.value.reason == reason


def write_bomb(path, width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("limit", [None, 89_478_485])
def test_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    write_bomb(tmp_path / "bomb.png", 50_000, 50_000)
    with pytest.raises(ImageError, match=r"bomb\.png: .*decompression bomb") as error:
        open_image(tmp_path / "bomb.png")
    assert error.value.reason == "image_bomb"


def test_hash_is_the_content(tmp_path):
    save(tmp_path / "a.png"), save(tmp_path / "b.png")
    save(tmp_path / "c.png", colour=(0, 0, 0))
    first, copy, other, gone = (
        examine_image(ImageFolders(tmp_path), name)
        for name in ("a.png", "b.png", "c.png", "gone.png")
    )
    content = (tmp_path / "a.png").read_bytes()
    assert first.hash == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert first.hash == copy.hash != other.hash
    assert (gone.hash, gone.state, gone.findings[0][0]) == (None, None, "image_missing")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/../../b", "/a", "a\0b", "..\\a", "\\a", "link/a"]
)
def test_hostile_paths(tmp_path, name):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ImageError, match=r"data\.image_dir") as error:
        ImageFolders(folder).resolve(name)
    assert error.value.reason == "image_outside"


def test_links_inside_the_folder_are_followed(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert ImageFolders(tmp_path).resolve("b.png") == tmp_path / "a.png"
