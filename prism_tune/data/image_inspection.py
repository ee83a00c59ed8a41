"""What is wrong, or odd, about one image file: decoded once, before any device is paid for.

An image folder and a name go in; the file's state and its findings (reason, detail) come out.
Light enough to be imported by many worker processes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from prism_tune.data.images import ImageError, opened_image, resolve_image
from prism_tune.data.policy import Reason

MAX_ASPECT_RATIO = 20
"""Of the longer to the shorter side; padded to a square, less than a twentieth would be image."""

Finding = tuple[Reason, str]
FileState = tuple[int, int]


@dataclass(frozen=True)
class Inspection:
    """One image's findings; `state` is (bytes, mtime in ns), None where there is no such file."""

    name: str
    state: FileState | None
    findings: tuple[Finding, ...]


def inspect_image(image_dir: Path, name: str) -> Inspection:
    """Resolve, open and decode one image."""
    try:
        path = resolve_image(image_dir, name)
        findings = _inspect_file(path)
    except ImageError as error:
        findings = ((error.reason, str(error)),)
    return Inspection(name, read_state(image_dir, name), findings)


def read_state(image_dir: Path, name: str) -> FileState | None:
    """Size and modification time, which tell whether an earlier inspection still holds."""
    try:
        state = os.stat(os.path.join(image_dir, name))
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


def _inspect_file(path: Path) -> tuple[Finding, ...]:
    """Everything odd about an image that can be decoded.

    Raises:
        ImageError: it cannot.
    """
    with opened_image(path) as image:
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
