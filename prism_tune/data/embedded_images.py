"""Images that records hold themselves, written out once per content into a folder of the cache.

Rows with bytes, or images named by their content, go in; the same rows with names and text in place
of the bytes come out, and files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prism_tune.data.layouts.contents import PART_KEYS
from prism_tune.data.layouts.further import IMAGE_KEYS
from prism_tune.data.layouts.image_values import EMBEDDED, NamedImage, name_content
from prism_tune.data.layouts.media import stand_for
from prism_tune.run.partial import partial_file

Slot = Literal["image", "content", "text", "unread"]
"""What bytes are: an image or its name, an image for certain, text, or nothing that is read."""


class RowKeys(NamedTuple):
    """Which keys of a row hold images, and which are read at all."""

    images: Collection[str] = ()
    read: Collection[str] = ()

    def slot(self, key: str) -> Slot:
        """What bytes under a key of the row are."""
        if key in self.images:
            return "image"
        return "text" if key in self.read else "unread"


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
        path = self._locate(image.name)
        if path.exists() and path.stat().st_size == len(image.content):
            return
        with partial_file(path) as temporary:
            temporary.write_bytes(image.content)
            os.replace(temporary, path)
        self.num_written += 1
        self.num_bytes += len(image.content)

    def holds(self, name: str) -> bool:
        """Whether an image of this name, as they are called in records, is there."""
        return self._locate(name).exists()

    def _locate(self, name: str) -> Path:
        file = name.removeprefix(EMBEDDED)
        return self._folder / file[:2] / file

    def detach(self, row: Mapping[str, Any], keys: RowKeys) -> dict[str, Any]:
        """A row without bytes that are images: these are kept, and named instead.

        Where text is read, bytes are UTF-8, as tables without types and files of tars have it;
        others stay bytes there, for the reader to refuse. Under keys that are not read stands their
        hash in place of them, so that the row still tells of its content.
        """
        return {key: self._detach(value, keys.slot(key)) for key, value in row.items()}

    def _detach(self, value: Any, slot: Slot) -> Any:
        if isinstance(value, dict):
            return {key: self._detach(item, _slot_in(slot, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._detach(item, slot) for item in value]
        if not isinstance(value, bytes):
            return value
        if not value:
            return None
        if slot == "unread":
            return stand_for(value)
        if slot != "content" and (text := _decode(value, slot)) is not None:
            return text
        if slot == "text":
            return value
        image = name_content(value)
        self.keep(image)
        return image.name


def _slot_in(slot: Slot, key: str) -> Slot:
    """What stands under a key of an object: in a turn, or a part of one, that may be an image."""
    if slot == "unread":
        return slot
    if key == "bytes":
        return "content"
    return "image" if key in IMAGE_KEYS or key in PART_KEYS else slot


def _decode(value: bytes, slot: Slot) -> str | None:
    """UTF-8 as text; where an image may be meant, only what no image begins like: its name."""
    try:
        text = value.decode("utf-8-sig")
    except UnicodeError:
        return None
    return text if slot == "text" or text.isprintable() else None
