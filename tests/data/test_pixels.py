"""Every kind of image file becomes 8-bit RGB, or a reason: nothing is clipped, nothing ends."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from support.permissions import permissions_held

from prism_tune.data.examination import examine_image
from prism_tune.data.image_paths import ImageFolders
from prism_tune.data.images import ImageError, open_image, read_size

GRADIENT = (np.arange(40 * 32).reshape(32, 40) * 51).astype(np.uint16)
"""0 to 65,229."""


def big_endian(path):
    values = GRADIENT.astype(">u2").tobytes()
    Image.frombytes("I;16B", (40, 32), values).save(path)


def upright(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(GRADIENT, 1).copy()).save(path, exif=exif)


WIDE = {
    "a.png": lambda path: Image.fromarray(GRADIENT).save(path),
    "a.tif": lambda path: Image.fromarray(GRADIENT).save(path),
    "lzw.tif": lambda path: Image.fromarray(GRADIENT).save(path, compression="tiff_lzw"),
    "big_endian.tif": big_endian,
    "a.pgm": lambda p: p.write_bytes(b"P5 40 32 65535\n" + GRADIENT.astype(">u2").tobytes()),
    "turned.png": upright,
}


@pytest.mark.parametrize("name", WIDE)
def test_16_bits_are_scaled_and_not_clipped(tmp_path, name):
    WIDE[name](tmp_path / name)
    image = open_image(tmp_path / name)
    values = np.asarray(image)
    assert image.mode == "RGB"
    assert np.array_equal(values, np.repeat((GRADIENT >> 8)[..., None], 3, axis=2))
    assert examine_image(ImageFolders(tmp_path), name).findings == ()


def test_16_bits_of_which_few_are_used_are_said(tmp_path):
    Image.fromarray(GRADIENT >> 4).save(tmp_path / "x_ray.png")
    ((reason, detail),) = examine_image(ImageFolders(tmp_path), "x_ray.png").findings
    assert reason == "image_16bit"
    assert detail.endswith("16-bit values 0 to 4,076, of which 8 bits keep 16 grey levels")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("depth.tif", GRADIENT.astype(np.float32), "floating-point values, whose range is not"),
        ("count.tif", GRADIENT.astype(np.int32), "32-bit values, whose range is not known"),
        ("lab.tif", Image.new("LAB", (4, 2)), "pixels of mode LAB; save it as RGB"),
    ],
)
def test_what_has_no_scale_is_refused_alike(tmp_path, name, values, message):
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(tmp_path / name)
    with pytest.raises(ImageError, match=message) as error:
        open_image(tmp_path / name)
    assert error.value.reason == "image_mode"
    assert [reason for reason, _ in examine_image(ImageFolders(tmp_path), name).findings] == [
        "image_mode"
    ]
    assert read_size(tmp_path / name) == image.size


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("a.png", "L", 9, (9, 9, 9)),
        ("a.png", "LA", (9, 0), (9, 9, 9)),
        ("a.png", "RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("a.tif", "RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("a.png", "1", 1, (255, 255, 255)),
        ("a.tif", "CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_other_kinds_keep_their_colour(tmp_path, name, mode, colour, expected):
    Image.new(mode, (4, 2), colour).save(tmp_path / name)
    assert open_image(tmp_path / name).getpixel((0, 0)) == expected
    (found,) = examine_image(ImageFolders(tmp_path), name).findings
    assert found == ("image_blank", f"{tmp_path}/{name}: one colour all over, {expected} in RGB")


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_a_palette_with_transparency_keeps_its_colours(tmp_path, transparency):
    image = Image.new("P", (4, 2))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.save(tmp_path / "a.png", transparency=transparency)
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (1, 2, 3)


def second_page(path):
    """A TIFF whose second page has no width."""
    pages = [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8))]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    (second,) = struct.unpack_from("<I", content, first + 2 + 12 * count)
    struct.pack_into("<H", content, second + 2, 65000)
    path.write_bytes(content)


def short_frame(path):
    Image.new("P", (8, 8)).save(path)
    path.write_bytes(path.read_bytes()[:-1] + b",\0\0")


HOSTILE = {
    "second_page.tif": (second_page, "image_truncated"),
    "short_frame.gif": (short_frame, "image_truncated"),
    "blp.png": (
        lambda p: p.write_bytes(b"BLP2\x01\x40" + b"\0" * 6 + b"\x08\0\0\0" * 2 + b"\0" * 1200),
        "image_truncated",
    ),
    "dds.png": (
        lambda p: p.write_bytes(b"DDS |\0\0\0\x0f\x10\0\0\x08\0\0\0\x08" + b"\0" * 200),
        "image_unreadable",
    ),
    f"{'n' * 300}.png": (lambda path: None, "image_unreadable"),
    "loop.png": (lambda path: path.symlink_to(path), "image_unreadable"),
    "file.png/a.png": (lambda path: path.parent.write_bytes(b""), "image_missing"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_have_a_reason(tmp_path, name):
    make, expected = HOSTILE[name]
    make(tmp_path / name)
    assert [reason for reason, _ in examine_image(ImageFolders(tmp_path), name).findings] == [
        expected
    ]


def test_a_closed_folder_is_a_reason(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    Image.new("RGB", (4, 2)).save(folder / "a.png")
    folder.chmod(0o600)
    try:
        with permissions_held():
            ((reason, _),) = examine_image(ImageFolders(tmp_path), "closed/a.png").findings
    finally:
        folder.chmod(0o700)
    assert reason == "image_unreadable"


def test_pages_without_end_are_not_counted_to_the_end(tmp_path):
    """100,000 pages: looking for all of them took minutes."""
    numbers = (256, 257, 258, 259, 262, 273, 277, 278, 279)
    values = (1, 1, 8, 1, 1, 8, 1, 1, 1)
    tags = zip(numbers, values, strict=True)
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size = 2 + len(fields) + 4
    pages = (
        struct.pack("<H", len(numbers)) + fields + struct.pack("<I", 12 + (n + 1) * size)
        for n in range(100_000)
    )
    content = b"II*\0" + struct.pack("<I", 12) + b"\x07\0\0\0" + b"".join(pages)
    (tmp_path / "pages.tif").write_bytes(content)
    blank, (reason, detail) = examine_image(ImageFolders(tmp_path), "pages.tif").findings
    assert (blank[0], reason) == ("image_blank", "image_animated")  # of one pixel
    assert detail.endswith("very many frames; the first is used")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "BMP", "DDS", "TGA", "ICO", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_changed_in_a_file_there_is_an_image_or_a_reason(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    frames = {"append_images": [Image.new("RGB", (16, 16))], "save_all": True}
    options = frames if kind in ("PNG", "GIF", "TIFF", "WEBP") else {}
    Image.fromarray(noise).save(buffer, kind, **options)
    sound = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    rng = np.random.default_rng(1)
    path = tmp_path / "a.png"
    for _ in range(60):
        content = sound.copy()
        places = rng.integers(0, min(len(content), 200), 4)
        content[places] = rng.integers(0, 256, 4)
        path.write_bytes(content[: rng.integers(1, len(content) + 1)].tobytes())
        found = examine_image(ImageFolders(tmp_path), "a.png")
        assert found.hash is not None
        assert _outcome(path) in {"RGB", *(reason for reason, _ in found.findings)}


def _outcome(path):
    try:
        return open_image(path).mode
    except ImageError as error:
        return error.reason
