"""Damaged images, pools, records, questions, a few hundred of each; `make fuzz` tries many more."""

from __future__ import annotations

import struct

import pytest
from support.fuzz import fuzz
from support.hostile_images import write_pages

from prism_tune.data.examination import examine_image
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import open_image


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "number"), [("images", 200), ("pools", 90), ("records", 300), ("questions", 130)]
)
def test_whatever_is_damaged_has_an_answer(kind, number):
    assert fuzz(kind, number, seed=1) == []


def chunk(kind, body):
    return b"RIFF" + struct.pack("<I", 22 + 400_000) + b"WEBP" + kind + b"\0\0\0\0" + body


@pytest.mark.parametrize(
    "content",
    [
        chunk(b"VP8X", b"\2\0\0\0" + (12_999).to_bytes(3, "little") * 2),
        chunk(b"VP8L", b"\x2f" + (12_999 | 12_999 << 14).to_bytes(4, "little") + b"\0" * 5),
        chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 13_000, 13_000)),
    ],
    ids=["extended", "lossless", "lossy"],
)
def test_the_memory_of_a_webp_is_bounded_before_it_is_decoded(tmp_path, content):
    """Pillow's decoder takes two gigabytes for one of these as soon as it is opened."""
    path = tmp_path / "a.webp"
    path.write_bytes(content + b"\0" * 100)
    with pytest.raises(ImageError, match="13000 x 13000 pixels; refused") as error:
        open_image(path)
    assert error.value.reason == "image_bomb"


def test_pages_without_end(tmp_path):
    (tmp_path / "a.tiff").write_bytes(write_pages(20_000))
    found = examine_image(ImageFolders(tmp_path), "a.tiff").findings
    assert [reason for reason, _ in found] == ["image_blank", "image_animated"]
