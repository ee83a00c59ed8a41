"""JSON that prism_tune wrote itself, read back: what is missing in it is said, not stumbled over.

A key that is not there names the file. Values of another kind show only where they are used: the
command line asks `altered_records` then. A stage seals its records for that (`stage.py`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

import orjson

from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_large

STATE = "stage.json"
ANEW = "restore it, or remove it and repeat what wrote it"
_read: dict[Path, None] = {}


class Written(dict[str, Any]):
    """An object of such a file; a key that it lacks is the file's fault."""

    path: Path

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(
            f"{self.path}: not as it was written: no `{key}` in it; another version of prism_tune "
            f"wrote it, or it was changed: {ANEW}"
        )


def mark_written(value: Any, path: Path) -> Any:
    """The same content, its objects as `Written`; remembers that the file was read."""
    _read[path.absolute()] = None
    return _mark(value, path)


def _mark(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        marked = Written({key: _mark(item, path) for key, item in value.items()})
        marked.path = path
        return marked
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [_mark(item, path) for item in value]
    return value


def seal(content: dict[str, Any]) -> str:
    """Stands for the content of a stage's own record, without its seal."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    options = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(rest, option=options)).hexdigest()


def describe_file(path: Path) -> list[Any] | None:
    """Size and SHA-256 of a file (a large one is sampled); None where there is none."""
    return [path.stat().st_size, fingerprint_large(path)] if path.is_file() else None


def altered_records() -> list[Path]:
    """Of the files read in this process, those that are not as their stage left them."""
    return [path for path in _read if _is_altered(path)]


def _is_altered(path: Path) -> bool:
    try:
        state = orjson.loads((path.parent / STATE).read_bytes())
        if path.name == STATE:
            return bool(state.get("seal")) and state["seal"] != seal(state)
        recorded = state.get("records", {}).get(path.name)
        return recorded is not None and recorded != describe_file(path)
    except (OSError, orjson.JSONDecodeError, AttributeError):
        return False


def read_log(path: Path) -> list[dict[str, Any]]:
    """The steps of a training's log; a last line that a kill cut short is left out.

    Raises:
        UserError: another line is not as it was written.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            step = orjson.loads(line)
        except orjson.JSONDecodeError:
            step = None
        if not isinstance(step, dict):
            raise UserError(f"{path}: line {number}: not as it was written: {ANEW}")
        found.append(step)
    return found
