"""Pixels of any kind of image file as 8-bit RGB, or why they cannot be.

Values of 16 bits are scaled by `value >> 8`. Floating-point and 32-bit values have no range of
their own (metres, degrees, counts), so that no scale would be right: they are refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

FEWEST_LEVELS = 64
"""Of 256 grey levels; an image of 12 bits in 16, scaled, has 16 left and is nearly black."""

_CONVERTED = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_WIDE = {"PNG", "PPM", "JPEG2000"}
"""Formats whose integers, where they are wider than a byte, have 16 bits."""


def find_obstacle(image: Image.Image) -> str:
    """Why an image cannot be scaled to 8-bit RGB; empty where it can."""
    if has_16_bits(image) or image.mode in _CONVERTED or image.mode in _PREMULTIPLIED:
        return ""
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        return f"{kind} values, whose range is not known; save it with 8 or 16 bits a value"
    return f"pixels of mode {image.mode}; save it as RGB"


def has_16_bits(image: Image.Image) -> bool:
    """Whether values are grey, from 0 to 65,535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in _WIDE)


def to_rgb(image: Image.Image) -> Image.Image:
    """The upright image in RGB; one without `find_obstacle`, which may be changed in place.

    The EXIF orientation is applied, as viewers do. Transparent pixels keep the colour they have
    under the transparency.
    """
    wide = has_16_bits(image)
    ImageOps.exif_transpose(image, in_place=True)
    if wide:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    return image.convert("RGB")


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """As LLaVA's `expand2square`: an RGB image in the middle, the mean colour around it."""
    side = max(image.size)
    if image.mode != "RGB" or min(image.size) == side:
        return image
    padded = Image.new("RGB", (side, side), tuple(int(255 * value) for value in mean))
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def count_levels(image: Image.Image) -> tuple[int, int, int]:
    """The lowest and highest value of a 16-bit image, and how many grey levels they span in 8."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    return low, high, (high >> 8) - (low >> 8) + 1
