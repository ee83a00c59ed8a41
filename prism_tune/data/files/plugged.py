"""Pools in files of other kinds than ours: the reader of a plugin, by the file's suffix.

A reader is a function of the path that yields the records, each a dictionary in any layout that a
JSON pool may have (docs/data.md); images may be paths or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from prism_tune.config.plugins import find_plugged
from prism_tune.errors import UserError

Reader = Callable[[Path], Iterator[dict[str, Any]]]
_OURS = {".json", ".jsonl", ".parquet", ".pq", ".arrow", ".tar", ".gz", ".bz2", ".xz", ".zst"}
"""Subsets and converted pools are read under these again."""


def find_reader(path: Path) -> Reader | None:
    """The plugin's reader of this file; None where the suffix is ours, or nobody's.

    Raises:
        ConfigError: a plugin that cannot be loaded, or wants a suffix that is ours.
    """
    own = dict.fromkeys(_OURS)
    read = find_plugged("READERS", path.suffix, FunctionType, own) if path.is_file() else None
    return None if read is None else lambda path: _check(path, read)


def _check(path: Path, read: Callable[[Path], Any]) -> Iterator[dict[str, Any]]:
    """What the reader yields, if that is records."""
    for number, record in enumerate(read(path)):
        if not isinstance(record, Mapping):
            raise UserError(
                f"{path}: record {number}: its plugin's reader yields {type(record).__name__}, "
                "expected a dictionary (docs/plugins.md)"
            )
        yield dict(record)
