"""Images that records hold themselves, written out once per content into a folder of the cache.

Rows with bytes, or images named by their content, go in; the same rows with names in place of the
bytes come out, and files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_tune.data.layouts.image_values import EMBEDDED, NamedImage, name_content
from prism_tune.data.layouts.media import UNREAD_BYTES
from prism_tune.run.partial import partial_file


class EmbeddedImages:
    """A folder of images by their content.

    Attributes:
        num_written: how many were not there yet.
        num_bytes: of these.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self.num_written = 0
        self.num_bytes = 0

    def keep(self, image: NamedImage) -> None:
        """Write an image that has content, where it is not there yet."""
        if image.content is None or image.name in self._known:
            return
        self._known.add(image.name)
        name = image.name.removeprefix(EMBEDDED)
        path = self._folder / name[:2] / name
        if path.exists() and path.stat().st_size == len(image.content):
            return
        with partial_file(path) as temporary:
            temporary.write_bytes(image.content)
            os.replace(temporary, path)
        self.num_written += 1
        self.num_bytes += len(image.content)

    def detach(self, row: Mapping[str, Any], read_keys: frozenset[str]) -> dict[str, Any]:
        """A row without bytes: in columns that are read, images are kept and named instead.

        In place of other bytes stands their hash, so that the row still tells of its content.
        """
        return {key: self._detach(value, key in read_keys) for key, value in row.items()}

    def _detach(self, value: Any, is_read: bool) -> Any:
        if isinstance(value, dict):
            return {key: self._detach(item, is_read) for key, item in value.items()}
        if isinstance(value, list):
            return [self._detach(item, is_read) for item in value]
        if not isinstance(value, bytes):
            return value
        if not value:
            return None
        if not is_read:
            return UNREAD_BYTES + hashlib.blake2b(value, digest_size=16).hexdigest()
        image = name_content(value)
        self.keep(image)
        return image.name
