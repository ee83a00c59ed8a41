"""What is to be known of one image file before it is used: its hash, and everything odd about it.

A name goes in; an `ExaminedImage` comes out. Light enough to be imported by many worker processes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import MAX_PIXELS, decode, opened_image, require_file
from prism_tune.data.pixels import FEWEST_LEVELS, count_levels, has_16_bits
from prism_tune.data.policy import Reason

MAX_ASPECT_RATIO = 20
"""Of the longer to the shorter side; padded to a square, less than a twentieth would be image."""

BLANK_SPAN = 3
"""From the lowest to the highest of 256 values in each channel: nobody sees what is drawn in it."""

Finding = tuple[Reason, str]
FileState = tuple[int, int]

_MOST_FRAMES = 1000
_BLOCK_BYTES = 1 << 20


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


def can_open(folders: ImageFolders, name: str) -> bool:
    """Whether an image's file is where it may be, and opens."""
    try:
        with _opened_file(folders.resolve(name)):
            return True
    except ImageError:
        return False


@contextmanager
def _opened_file(path: Path) -> Iterator[BinaryIO]:
    require_file(path)
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
        findings = _look_at_depth(path, image)
        findings += _look_for_content(path, decode(path, image), findings)
        num_frames = _count_frames(image)
    expected = Image.registered_extensions().get(path.suffix.lower())
    if expected is not None and not _same_kind(kind, expected):
        detail = f"{path}: the content is {kind}, the name says {expected}"
        findings.append(("image_wrong_type", detail))
    if num_frames > 1 and kind != "MPO":  # a second view beside a photograph, not an animation
        number = f"{num_frames} frames" if num_frames < _MOST_FRAMES else "very many frames"
        findings.append(("image_animated", f"{path}: {number}; the first is used"))
    if max(size) > MAX_ASPECT_RATIO * min(size):
        detail = f"{path}: {size[0]} x {size[1]} pixels, over {MAX_ASPECT_RATIO}:1"
        findings.append(("image_aspect_ratio", detail))
    elif max(size) ** 2 > MAX_PIXELS:
        detail = f"{path}: {size[0]} x {size[1]} pixels, {max(size) ** 2:,} when padded to a square"
        findings.append(("image_aspect_ratio", detail))
    return tuple(findings)


def _same_kind(kind: str, expected: str) -> bool:
    """Whether a file's format fits its extension; a camera's .jpg may be MPO."""
    return kind == expected or {kind, expected} == {"JPEG", "MPO"}


def _look_at_depth(path: Path, image: Image.Image) -> list[Finding]:
    """Of 16 bits so few may be used that nothing is left to see in 8."""
    if not has_16_bits(image):
        return []
    low, high, num_levels = count_levels(image)
    if num_levels >= FEWEST_LEVELS:
        return []
    found = f"16-bit values {low:,} to {high:,}, of which 8 bits keep {num_levels} grey levels"
    return [("image_16bit", f"{path}: {found}")]


def _look_for_content(path: Path, rgb: Image.Image, depth: list[Finding]) -> list[Finding]:
    """One colour all over, as the model will see it; unless its depth has been blamed already."""
    ranges: Any = rgb.getextrema()  # (lowest, highest) of each channel
    if depth or any(high - low > BLANK_SPAN for low, high in ranges):
        return []
    colour = ", ".join(str(low) for low, _ in ranges)
    return [("image_blank", f"{path}: one colour all over, ({colour}) in RGB")]


def _count_frames(image: Image.Image) -> int:
    """Frames of an image; those of a TIFF are looked for one by one, so only so many."""
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    for number in range(1, _MOST_FRAMES):
        try:
            image.seek(number)
        except EOFError:
            return number
    return _MOST_FRAMES
