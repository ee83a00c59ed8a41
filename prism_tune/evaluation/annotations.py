"""Official annotation files: paths in, checked records out.

JSON, JSON lines, and the hub's parquet of the `datasets` schema. Every error names the file and
what was expected of it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import reprlib
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import orjson

from prism_tune.errors import UserError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""In this order: the mark of UTF-32 begins with that of UTF-16."""


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or what its byte order mark says (Excel and Notepad write one).

    Raises:
        UserError: missing, a folder, or no such text.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder; expected a file") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected {encoding.upper()} text: {error}") from error


def read_json_file(path: Path) -> Any:
    """Somebody's JSON: a byte order mark is passed over, and NaN (a table's empty cell) is null.

    Raises:
        UserError: missing, or not JSON.
    """
    return parse_json(read_text(path), str(path))


def read_objects(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a file of JSON objects: one a line (blank lines are passed over), or a list of them.

    Returns:
        (where, record) pairs; `where` names file and line (or number in the list), for messages.

    Raises:
        UserError: missing file, or something that is no JSON object (named by its number).
    """
    text = read_text(path)
    if text.lstrip().startswith("[") and not _is_list_a_line(text):
        values = parse_json(text, str(path))
        return [_check_object(v, f"{path}, record {n}") for n, v in enumerate(values, 1)]
    numbered = ((f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1))
    return [
        _check_object(parse_json(line, where, "; expected one object a line"), where)
        for where, line in numbered
        if line.strip()
    ]


def parse_json(text: str, where: str, expected: str = "") -> Any:
    """Text as JSON, NaN as null.

    Raises:
        UserError: naming `where`.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            content = json.loads(text, parse_constant=lambda _: None, parse_int=orjson.loads)
            orjson.dumps(content)  # half a character in it (\ud800) can be neither shown nor kept
        except (ValueError, TypeError, RecursionError):
            raise UserError(f"{where}: not valid JSON: {error}{expected}") from error
        return content


def _is_list_a_line(text: str) -> bool:
    """Whether the first line is a list of its own, with more behind it."""
    first, _, rest = text.strip().partition("\n")
    return first.rstrip().endswith("]") and bool(rest.strip())


def _check_object(record: Any, where: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected one JSON object a line, found {type(record).__name__}")
    return where, record


def to_text(value: Any, where: str) -> str:
    """A text, or the text of a number: table programs turn "5" into 5 or 5.0.

    Raises:
        UserError: something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise UserError(f"{where}: expected text, found {reprlib.repr(value)}")
    return str(int(value)) if value == int(value) else repr(value)


def to_optional_text(value: Any, where: str) -> str:
    """The same; empty where there is none.

    Raises:
        UserError: something else.
    """
    return "" if value is None else to_text(value, where)


def to_list(value: Any, where: str) -> list[Any]:
    """A list.

    Raises:
        UserError: something else.
    """
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list, found {reprlib.repr(value)}")
    return value


def to_number(value: Any, where: str) -> int:
    """A whole number, also where it is written as text or as 2.0.

    Raises:
        UserError: something else.
    """
    try:
        number = float(value)
        if not isinstance(value, bool) and number == int(number):
            return (
                int(value)
                if isinstance(value, int | str) and "." not in str(value)
                else int(number)
            )
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{where}: expected a number, found {value!r}")


def to_letter(value: Any, options: Collection[str], where: str) -> str:
    """The letter of an option, in any case, spaces around it passed over.

    Raises:
        UserError: none of the options' letters.
    """
    letter = str(value).strip().upper()
    if letter not in options:
        listed = ", ".join(options) or "none there"
        raise UserError(f"{where}: expected the letter of an option ({listed}), found {value!r}")
    return letter


def to_yes_no(value: Any, where: str) -> str:
    """The word yes or no, in any case, spaces and one period around it passed over.

    Raises:
        UserError: something else.
    """
    word = str(value).strip().lower().removesuffix(".")
    if isinstance(value, bool) or word not in ("yes", "no"):
        raise UserError(f"{where}: expected yes or no, found {value!r}")
    return word


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


def data_uri(content: str) -> str:
    """A data URI for an image that an annotation file carries as base64, or as such a URI."""
    if content.startswith("data:"):
        return content
    try:
        head = base64.b64decode(content[:16] + "=" * (-len(content[:16]) % 4))
    except (binascii.Error, ValueError):
        head = b""  # found out, and the question named, when its image is looked at
    kind = "png" if head.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{content}"
