"""One image file: a safe path in; its RGB image, or what is to be known of it, out.

Nothing outside the image folder is opened, nothing broken is replaced, no bomb is inflated. Light
enough to be imported by many worker processes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.policy import Reason

MAX_PIXELS = 178_956_970
"""Pillow's own limit for a decompression bomb error: twice its 89-megapixel warning."""

MAX_ASPECT_RATIO = 20
"""Of the longer to the shorter side; padded to a square, less than a twentieth would be image."""

Finding = tuple[Reason, str]
FileState = tuple[int, int]

_BLOCK_BYTES = 1 << 20
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = {5, 6, 7, 8}


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


@dataclass(frozen=True)
class ExaminedImage:
    """What is to be known of one image file.

    Attributes:
        name: the record's name for it.
        state: (bytes, mtime in ns); None where there is no such file.
        hash: BLAKE2b-128 hex digest of the file's bytes, equal for copies under other names; None
            where they cannot be read.
        findings: (reason, detail) of everything wrong or odd.
    """

    name: str
    state: FileState | None
    hash: str | None
    findings: tuple[Finding, ...]


def examine_image(folders: ImageFolders, name: str) -> ExaminedImage:
    """Open one image once, and read its content for the hash and the decoder."""
    state, digest = read_state(folders, name), None
    try:
        path = folders.resolve(name)
        with _opened_file(path) as file:
            digest = _hash_content(file)
            file.seek(0)
            findings = _inspect(path, file)
    except ImageError as error:
        findings = ((error.reason, str(error)),)
    return ExaminedImage(name, state, digest, findings)


def read_state(folders: ImageFolders, name: str) -> FileState | None:
    """Size and modification time, which tell whether an earlier examination still holds."""
    try:
        state = os.stat(folders.locate(name))
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


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
    _refuse_special(path)
    try:
        with warnings.catch_warnings():
            # The warning at half the limit would be printed once per large, but sound, photograph.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
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
            "image_bomb", f"{path}: refused as a decompression bomb: {_first_line(error)}"
        ) from error
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,  # what Pillow raises for a broken PNG
        ValueError,
    ) as error:
        raise _name_fault(path, reason, error) from error


@contextmanager
def _opened_file(path: Path) -> Iterator[BinaryIO]:
    _refuse_special(path)
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise ImageError("image_missing", f"{path}: no such image file") from error
    except OSError as error:
        raise ImageError("image_unreadable", f"{path}: {error}") from error


def _hash_content(file: BinaryIO) -> str:
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _inspect(path: Path, file: BinaryIO) -> tuple[Finding, ...]:
    """Everything odd about an image that can be decoded.

    Raises:
        ImageError: it cannot.
    """
    with opened_image(path, file) as image:
        image.load()
        kind, size = str(image.format), image.size
        num_frames = getattr(image, "n_frames", 1)
    findings: list[Finding] = []
    expected = Image.registered_extensions().get(path.suffix.lower())
    if expected is not None and not _same_kind(kind, expected):
        detail = f"{path}: the content is {kind}, the name says {expected}"
        findings.append(("image_wrong_type", detail))
    if num_frames > 1 and kind != "MPO":  # a second view beside a photograph, not an animation
        findings.append(("image_animated", f"{path}: {num_frames} frames; the first is used"))
    if max(size) > MAX_ASPECT_RATIO * min(size):
        detail = f"{path}: {size[0]} x {size[1]} pixels, over {MAX_ASPECT_RATIO}:1"
        findings.append(("image_aspect_ratio", detail))
    return tuple(findings)


def _same_kind(kind: str, expected: str) -> bool:
    """Whether a file's format fits its extension; a camera's .jpg may be MPO."""
    return kind == expected or {kind, expected} == {"JPEG", "MPO"}


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
    if isinstance(error, UnidentifiedImageError):  # it says no more than that
        return ImageError(reason, f"{path}: {problem}")
    return ImageError(reason, f"{path}: {problem}: {_first_line(error)}")


def _check_size(path: Path, image: Image.Image) -> None:
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ImageError("image_bomb", f"{path}: {size} pixels; refused as a decompression bomb")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
