"""Image files: safe paths in, RGB images and content hashes out.

Nothing outside the image folder is opened, nothing broken is replaced, no bomb is inflated.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps, UnidentifiedImageError

from prism_tune.data.policy import Reason
from prism_tune.errors import UserError

MAX_PIXELS = 178_956_970
"""Pillow's own limit for a decompression bomb error: twice its 89-megapixel warning."""

_BLOCK_BYTES = 1 << 20
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = {5, 6, 7, 8}


class ImageError(UserError):
    """An image that cannot be used, with the reason its policy is looked up by."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def resolve_image(image_dir: Path, name: str) -> Path:
    """The path of an image named by a record, certain to lie inside `image_dir`.

    Existence is not checked. Links are followed, and may not lead out of the folder.

    Raises:
        ImageError: absolute, with `..`, or leading outside through a symbolic link.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or Path(name).is_absolute() or parts[0] == "/" or ".." in parts or "\0" in name:
        raise ImageError(
            "image_outside",
            f"image {name!r}: expected a path inside data.image_dir ({image_dir}), relative to it "
            "and without `..`",
        )
    root = image_dir.resolve()
    resolved = (root / name).resolve()
    if not resolved.is_relative_to(root):
        raise ImageError(
            "image_outside",
            f"image {name!r}: a symbolic link leads out of data.image_dir ({image_dir}) to "
            f"{resolved}; copy the files into it, or set data.image_dir to the real folder",
        )
    return resolved


def open_image(path: Path) -> Image.Image:
    """Decode an image file to RGB, upright.

    The EXIF orientation is applied, as viewers do. Of an animated image the first frame is taken.
    Transparent pixels keep the colour they have under the transparency.

    Raises:
        ImageError: missing, empty, truncated, not an image, or more than `MAX_PIXELS` pixels.
    """
    with opened_image(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image, from the file's header only.

    Raises:
        ImageError: missing, not an image, or more than `MAX_PIXELS` pixels.
    """
    with opened_image(path) as image:
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _SIDEWAYS
        return (image.height, image.width) if turned else (image.width, image.height)


def image_hash(path: Path) -> str:
    """BLAKE2b-128 hex digest of the file's bytes: equal for copies under other names.

    Raises:
        ImageError: the file is missing or unreadable.
    """
    digest = hashlib.blake2b(digest_size=16)
    _refuse_special(path)
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except FileNotFoundError as error:
        raise ImageError("image_missing", f"{path}: no such image file") from error
    except OSError as error:
        raise ImageError("image_unreadable", f"{path}: {error}") from error
    return digest.hexdigest()


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """The opened file, not decoded yet; what Pillow raises, then or later, becomes an ImageError.

    Raises:
        ImageError: missing, empty, not an image, a bomb; while decoding inside: truncated.
    """
    reason: Reason = "image_unreadable"
    _refuse_special(path)
    try:
        with warnings.catch_warnings():
            # The warning at half the limit would be printed once per large, but sound, photograph.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                reason = "image_truncated"
                _check_size(path, image)
                yield image
    except FileNotFoundError as error:
        raise ImageError("image_missing", f"{path}: no such image file") from error
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            "image_bomb", f"{path}: refused as a decompression bomb: {_first_line(error)}"
        ) from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,  # what Pillow raises for a broken PNG
        ValueError,
    ) as error:
        raise _name_fault(path, reason, error) from error


def _refuse_special(path: Path) -> None:
    """A pipe among the images would keep its reader waiting for ever."""
    if path.exists() and not path.is_file():
        raise ImageError("image_unreadable", f"{path}: not a file")


def _name_fault(path: Path, reason: Reason, error: Exception) -> ImageError:
    if path.is_file() and path.stat().st_size == 0:
        return ImageError("image_empty", f"{path}: the file has 0 bytes")
    problem = {
        "image_truncated": "it begins as an image but its pixels are not all there",
        "image_unreadable": "cannot be read as an image",
    }[reason]
    return ImageError(reason, f"{path}: {problem}: {_first_line(error)}")


def _check_size(path: Path, image: Image.Image) -> None:
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ImageError("image_bomb", f"{path}: {size} pixels; refused as a decompression bomb")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
