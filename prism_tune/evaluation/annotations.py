"""Official annotation files: paths in, checked records out.

JSON, JSON lines, and the hub's parquet of the `datasets` schema. Every error names the file and
what was expected of it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from prism_tune.errors import UserError


def read_json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a file of one JSON object a line; blank lines are passed over.

    Returns:
        (where, record) pairs; `where` names file and line, for messages.

    Raises:
        UserError: missing file, or a line that is no JSON object (named by its number).
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder; expected a file of JSON lines") from error
    numbered = ((f"{path}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip())
    return [(where, _parse_object(line, where)) for where, line in numbered]


def _parse_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON: {error}; expected one object a line") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected one JSON object a line, found {type(record).__name__}")
    return record


def require_keys(record: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Check that a record has all the keys.

    Raises:
        UserError: names the first missing key and those present.
    """
    if not isinstance(record, Mapping):
        raise UserError(f"{where}: expected an object, found {type(record).__name__}")
    for key in keys:
        if key not in record:
            found = ", ".join(map(str, list(record)[:12])) or "nothing"
            raise UserError(f"{where}: no key {key!r}; found {found}")


def require_files(folder: Path, names: Sequence[str], what: str) -> list[Path]:
    """The files of these names in a folder.

    Raises:
        UserError: the folder or one of the files is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; expected {what}: {', '.join(names)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} missing; expected {what}")
    return [folder / name for name in names]


def find_parquet(path: Path) -> list[Path]:
    """The parquet files a path stands for (itself, or those in the folder), sorted."""
    if path.suffix == ".parquet":
        return [path]
    return sorted(path.rglob("*.parquet")) if path.is_dir() else []


def read_parquet(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[Any]:
    """Rows of one parquet file as dicts, only these columns.

    Raises:
        UserError: unreadable, or a column of `columns` is missing.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error
    found = set(file.schema_arrow.names)
    require_keys(dict.fromkeys(file.schema_arrow.names), columns, str(path))
    wanted = [*columns, *(name for name in optional if name in found)]
    rows: list[Any] = file.read(columns=wanted).to_pylist()
    return rows


def parquet_image(path: Path, row: int, column: str) -> str:
    """A reference to an image inside a parquet file, for `images.open_question_image`."""
    return f"parquet:{path.resolve()}#{row}#{column}"


def data_uri(content_base64: str) -> str:
    """A data URI for an image that an annotation file carries as base64."""
    head = base64.b64decode(content_base64[:16] + "=" * (-len(content_base64[:16]) % 4))
    kind = "png" if head.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{content_base64}"
