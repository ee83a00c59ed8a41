"""What the files that cells read hold, looked at once in a call: many cells read the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import orjson

from prism_tune.config.sections import DataConfig
from prism_tune.data.records import open_pool
from prism_tune.run.fingerprints import fingerprint, fingerprint_model, fingerprint_path

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@cache
def look_at_model(path: str, revision: str | None) -> str:
    """The fingerprint of a model."""
    return fingerprint_model(path, revision)


@cache
def look_at_images(data: str) -> str | None:
    """The fingerprint of a pool's pictures, by their content; None where the pool is not a file.

    Args:
        data: the config's `data` section as JSON.
    """
    section = DataConfig.model_validate_json(data)
    if not Path(section.records).is_file():
        return None
    return open_pool(section).image_index.fingerprint


@cache
def count_objects(path: Path) -> int | None:
    """Of a file of JSON objects, one a line or a list; None where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            return len(orjson.loads(text))
        return sum(bool(line.strip()) for line in text.split("\n"))
    except (OSError, ValueError):
        return None


@cache
def look_at_folder(path: str) -> str:
    """The fingerprint of the names and sizes of the pictures below a folder, through links too.

    None is opened, for there may be a hundred thousand; other files do not count, for a run may
    write some there.
    """
    sizes = []
    for folder, names in _walk(path):
        below = os.path.relpath(folder, path)
        for name in sorted(name for name in names if name.lower().endswith(_PICTURES)):
            with suppress(OSError):  # a link that leads nowhere
                sizes.append((below, name, os.stat(os.path.join(folder, name)).st_size))
    return fingerprint(sorted(sizes))


def _walk(path: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder once, whatever links lead to it; by name, so that it is always the same link."""
    seen = set()
    for folder, inside, names in os.walk(path, followlinks=True):
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in seen:
            inside.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        inside.sort()
        yield folder, names


@cache
def look_at_path(path: str) -> str:
    """The fingerprint of a file or folder, or of the name where there is neither."""
    return fingerprint_path(Path(path))


def look_at_files_again() -> None:
    """Forget what files held: since they were looked at, they may have been made."""
    for look in (look_at_model, look_at_images, look_at_folder, look_at_path, count_objects):
        look.cache_clear()
