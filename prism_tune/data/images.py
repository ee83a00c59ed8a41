"""One image file: a safe path in; its RGB image, or what is to be known of it, out.

Nothing outside the image folder is opened, nothing broken is replaced, no bomb is inflated. Light
enough to be imported by many worker processes.
"""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from prism_tune.data.image_paths import ImageError
from prism_tune.data.pixels import find_obstacle, to_rgb
from prism_tune.data.policy import Reason
from prism_tune.errors import first_line

MAX_PIXELS = 178_956_970
"""Pillow's own limit for a decompression bomb error: twice its 89-megapixel warning."""

MAX_WEBP_PIXELS = MAX_PIXELS // 2
"""Its decoder takes 12 bytes for each: a gibibyte, and a file of a few kilobytes can ask for it."""

_RAISED_BY_DECODERS = (
    OSError,
    SyntaxError,  # of a broken PNG
    ValueError,
    TypeError,  # of a TIFF without dimensions
    LookupError,
    ArithmeticError,
    RuntimeError,  # NotImplementedError among them: BLP, DDS
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders have been seen to raise, or may, for damaged files."""

_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = {5, 6, 7, 8}


def open_image(path: Path) -> Image.Image:
    """Decode an image file to RGB, upright (see `pixels.py`).

    Of an animated image the first frame is taken.

    Raises:
        ImageError: missing, empty, truncated, not an image, more than `MAX_PIXELS` pixels, or of
            values that cannot be scaled to 8 bits.
    """
    with opened_image(path) as image:
        return decode(path, image)


def decode(path: Path, image: Image.Image) -> Image.Image:
    """The opened image in RGB, upright; it may be changed in place.

    Raises:
        ImageError: its values cannot be scaled to 8 bits.
    """
    if obstacle := find_obstacle(image):
        raise ImageError("image_mode", f"{path}: {obstacle}")
    return to_rgb(image)


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, from the file's header only.

    Raises:
        ImageError: missing, not an image, or more than `MAX_PIXELS` pixels.
    """
    with opened_image(path) as image:
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _SIDEWAYS
        return (image.height, image.width) if turned else (image.width, image.height)


@contextmanager
def opened_image(path: Path, file: BinaryIO | None = None) -> Iterator[Image.Image]:
    """The image, not decoded yet; what Pillow raises, then or later, becomes an ImageError.

    Args:
        path: of the file.
        file: the same, opened; it stays open.

    Raises:
        ImageError: missing, empty, not an image, a bomb; while decoding inside: truncated.
    """
    reason: Reason = "image_unreadable"
    require_file(path)
    try:
        with warnings.catch_warnings():
            # The warning at half the limit would be printed once per large, but sound, photograph.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # of damaged metadata: no pixel changes
            _check_canvas(path, file)
            with Image.open(path if file is None else file) as image:
                reason = "image_truncated"
                _check_size(path, image)
                yield image
    except FileNotFoundError as error:
        raise ImageError("image_missing", f"{path}: no such image file") from error
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            "image_bomb", f"{path}: refused as a decompression bomb: {first_line(error)}"
        ) from error
    except _RAISED_BY_DECODERS as error:
        raise _name_fault(path, reason, error) from error


def require_file(path: Path) -> None:
    """A pipe among the images would keep its reader waiting for ever.

    Raises:
        ImageError: not a file, or one that cannot be reached.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("image_missing", f"{path}: no such image file") from error
    except OSError as error:  # a name that is too long, a loop of links, a closed folder
        raise ImageError("image_unreadable", f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ImageError("image_unreadable", f"{path}: not a file")


def _name_fault(path: Path, reason: Reason, error: Exception) -> ImageError:
    if path.is_file() and path.stat().st_size == 0:
        return ImageError("image_empty", f"{path}: the file has 0 bytes")
    problem = {
        "image_truncated": "it begins as an image but its pixels are not all there",
        "image_unreadable": "cannot be read as an image",
    }[reason]
    if isinstance(error, UnidentifiedImageError):  # it says no more than that
        return ImageError(reason, f"{path}: {problem}")
    return ImageError(reason, f"{path}: {problem}: {first_line(error)}")


def _check_canvas(path: Path, file: BinaryIO | None) -> None:
    """A WebP's decoder takes three canvases of 4 bytes a pixel as soon as the file is opened."""
    with nullcontext(file) if file is not None else path.open("rb") as content:
        head = content.read(30)
        content.seek(0)
    size = _read_canvas(head)
    if size is not None and size[0] * size[1] > MAX_WEBP_PIXELS:
        raise ImageError(
            "image_bomb",
            f"{path}: a WebP of {size[0]} x {size[1]} pixels; refused as a decompression bomb",
        )


def _read_canvas(head: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP by its first 30 bytes; None of any other file."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (26, 28))
    return width, height


def _check_size(path: Path, image: Image.Image) -> None:
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ImageError("image_bomb", f"{path}: {size} pixels; refused as a decompression bomb")
