"""What other trainers call an image of a pool: a path that they find without the pool.

In: names as the pool has them. Out: the same where they are paths below its image folder, and files
beside the export for images that records hold themselves.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from prism_tune.data.layouts.image_values import EMBEDDED
from prism_tune.data.records import Pool


class ImageNames:
    """Names for one export.

    Args:
        pool: the records.
        folder: where images of records that hold them will lie, once per content.

    Attributes:
        written_to: where they are written.
    """

    def __init__(self, pool: Pool, folder: Path) -> None:
        self._pool = pool
        self.folder = folder
        self.written_to = folder
        self._written: set[str] = set()

    @property
    def num_written(self) -> int:
        """How many images are in the folder for this export."""
        return len(self._written)

    def translate(self, names: Sequence[str]) -> tuple[str, ...]:
        """Relative to the image folder where they were, as the files are called; else absolute."""
        return tuple(self._translate(name) for name in names)

    def _translate(self, name: str) -> str:
        if name.startswith(EMBEDDED):
            return self._write(name)
        located = self._pool.image_folders.locate(name)
        if located == os.path.join(self._pool.image_dir, name):
            return name
        return os.path.relpath(located, self._pool.image_dir)

    def _write(self, name: str) -> str:
        file = name.removeprefix(EMBEDDED)
        if name not in self._written:
            self._written.add(name)
            self.written_to.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._pool.image_folders.resolve(name), self.written_to / file)
        return str(self.folder.absolute() / file)
