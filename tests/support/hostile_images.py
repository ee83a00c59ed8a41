"""Images as they arrive from anywhere: every format that Pillow writes, damaged at random.

A seed goes in; file contents come out, always the same. Also by hand: what a mutation does not hit.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator

from PIL import Image

SAVED = {
    "png": [{}, {"mode": "P"}, {"mode": "I;16"}, {"mode": "RGBA"}, {"mode": "1"}],
    "jpeg": [{}, {"mode": "L"}, {"mode": "CMYK"}, {"progressive": True}],
    "gif": [{"mode": "P"}, {"frames": 3, "mode": "P"}],
    "tiff": [
        {},
        {"frames": 3},
        {"compression": "tiff_lzw"},
        {"compression": "jpeg"},
        {"compression": "tiff_adobe_deflate", "frames": 2},
        {"compression": "group4", "mode": "1"},
        {"mode": "I;16"},
        {"mode": "F"},
    ],
    "webp": [{}, {"lossless": True}, {"frames": 3}],
    "avif": [{}, {"frames": 2}],
    "jpeg2000": [{}],
    "bmp": [{}, {"mode": "P"}],
    "dds": [{}, {"mode": "RGBA"}],
    "blp": [{"mode": "P"}],
    "ico": [{}],
    "icns": [{}],
    "tga": [{}, {"compression": "tga_rle"}],
    "pcx": [{}],
    "ppm": [{}],
    "sgi": [{}],
    "im": [{}],
    "msp": [{"mode": "1"}],
    "spider": [{"mode": "F"}],
    "xbm": [{"mode": "1"}],
    "qoi": [{}],
    "eps": [{}],
}
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def draw_sound() -> Iterator[tuple[str, bytes]]:
    """One file a format and variant, by name."""
    for kind, variants in SAVED.items():
        for number, variant in enumerate(variants):
            options = dict(variant)
            image = _draw(options.pop("mode", "RGB"))
            frames = [image.rotate(90 * k) for k in range(1, options.pop("frames", 1))]
            if frames:
                options |= {"save_all": True, "append_images": frames}
            buffer = io.BytesIO()
            try:
                image.save(buffer, kind, **options)
            except (OSError, KeyError, ValueError):  # this Pillow does not write it
                continue
            yield f"{number}.{kind}", buffer.getvalue()


def mutate(content: bytes, randomness: random.Random) -> bytes:
    """Cut, overwritten, swapped, or with a number changed: most of it in the header."""
    data = bytearray(content)
    for _ in range(randomness.choice((1, 1, 2, 4, 8))):
        size = len(data)
        place = min(int(randomness.expovariate(1 / 60)), size - 1)
        place = place if randomness.random() < 0.7 else randomness.randrange(size)
        kind = randomness.randrange(7)
        if kind == 0:
            data[place] = randomness.randrange(256)
        elif kind == 1:
            data[place] = randomness.choice(INTERESTING)
        elif kind == 2:
            del data[max(place, 1) :]
        elif kind == 3:
            number = randomness.choice((0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 20))
            data[place : place + 4] = struct.pack(randomness.choice("<>") + "I", number)
        elif kind == 4:
            del data[place : place + randomness.randrange(1, 16)]
        elif kind == 5:
            data[place:place] = randomness.randbytes(randomness.randrange(1, 16))
        else:
            other = randomness.randrange(size)
            data[place : place + 8] = data[other : other + 8]
        if not data:
            return b""
    return bytes(data)


def write_pages(num_pages: int) -> bytes:
    """A TIFF of so many pages that all show the same grey pixel."""
    entries = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 3, 1, 1),
        (279, 4, 1, 1),
    ]
    size = 2 + 12 * len(entries) + 4
    begin = 10
    parts = [struct.pack("<2sHIH", b"II", 42, begin, 0x80)]
    for page in range(num_pages):
        following = 0 if page + 1 == num_pages else begin + (page + 1) * size
        fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        parts.append(struct.pack("<H", len(entries)) + fields + struct.pack("<I", following))
    return b"".join(parts)


def _draw(mode: str) -> Image.Image:
    image = Image.new("RGB", (40, 28), (200, 40, 10))
    image.paste((10, 60, 220), (5, 5, 30, 20))
    if mode == "I;16":
        return Image.frombytes("I;16", (40, 28), bytes(range(224)) * 10)
    return image.convert(mode)
