"""Which paths may be ids of the hub: what is not here is one of them, or a mistake."""

from __future__ import annotations

import re
from pathlib import Path

_FORM = re.compile(r"([\w-][\w.-]*/[\w.-]+)(:(([^:/]+):)?([\w.-]+))?")
_FILE_SUFFIXES = (
    *(".json", ".jsonl", ".gz", ".parquet", ".pq", ".arrow", ".tar", ".tgz"),
    *(".tsv", ".csv", ".xlsx"),
)


def has_hub_form(path: str) -> bool:
    """OWNER/NAME, of a pool also OWNER/NAME:SPLIT or :CONFIGURATION:SPLIT, and no file's name."""
    return _FORM.fullmatch(path) is not None and not path.endswith(_FILE_SUFFIXES)


def part_hub_id(path: str) -> tuple[str, str | None, str | None]:
    """OWNER/NAME, and configuration and split where they are named."""
    found = _FORM.fullmatch(path)
    assert found is not None  # `has_hub_form` was asked
    return found[1], found[4], found[5]


def may_be_hub_id(path: str) -> bool:
    """Whether it is not here and has the form of one.

    Not where OWNER is a folder here: then NAME is mistyped, or missing in it.
    """
    here = Path(path)
    return has_hub_form(path) and not here.exists() and not here.parent.exists()


def name_publicly(path: str) -> str:
    """What others are shown: a hub id, or a path's last part. Where it lies is this machine's."""
    return path if may_be_hub_id(path) else Path(path).name
