"""Official annotation files: paths in, checked records out.

JSON, JSON lines, and the hub's parquet of the `datasets` schema. Every error names the file and
what was expected of it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import os
import reprlib
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

import orjson

from prism_tune.errors import UserError

PARQUET = "parquet:"
"""How a reference to an image inside a parquet file begins."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""In this order: the mark of UTF-32 begins with that of UTF-16."""


_PACKED = {
    b"\x1f\x8b": "a gzip file; unpack it first (gunzip)",
    b"PK\x03\x04": "a zip or xlsx file; unpack it, or give it its suffix .xlsx",
    b"PAR1": "a parquet file; give it its suffix .parquet",
}


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or what its byte order mark says (Excel and Notepad write one).

    Raises:
        UserError: missing, a folder, or no such text.
    """
    with open_text(path) as file:
        try:
            text = file.read()
        except UnicodeDecodeError as error:
            raise describe_undecodable(path, error) from error
    if "\0" in text:
        raise describe_undecodable(path, None)
    return text.replace("\n\ufeff", "\n")  # where files with marks were joined


def open_text(path: Path) -> TextIO:
    """A file of text, opened with line ends as they are, in the encoding its first bytes tell.

    Raises:
        UserError: missing, a folder, or packed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(codecs.BOM_UTF32_LE))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: a folder; expected a file") from error
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed:
        raise UserError(f"{path}: expected text, found {packed}")
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    return path.open(encoding=encoding, newline="")


def describe_undecodable(path: Path, error: UnicodeDecodeError | None) -> UserError:
    """What to say of a file that is no text of its encoding, or has NUL characters in it."""
    found = "NUL characters (UTF-16 without its mark, or no text)" if error is None else str(error)
    return UserError(f"{path}: expected UTF-8 text, found {found}; save it as UTF-8")


def read_json_file(path: Path) -> Any:
    """Somebody's JSON: a byte order mark is passed over, and NaN (a table's empty cell) is null.

    Raises:
        UserError: missing, or not JSON.
    """
    try:
        return orjson.loads(path.read_bytes())  # without the text of hundreds of megabytes
    except (OSError, orjson.JSONDecodeError):
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
    file = str(path)
    numbered = ((f"{file}, line {n}", line) for n, line in enumerate(text.split("\n"), 1))
    return [
        _check_object(parse_json(line, where, "; expected one object a line"), where)
        for where, line in numbered
        if line and not line.isspace()
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


def to_id(value: Any, where: str) -> str | int:
    """An id: a whole number as it is, else as `to_text`. Raises UserError on something else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return to_text(value, where)


def to_name(value: Any, where: str) -> str:
    """A text that may be absent: empty where it is null. Raises UserError on something else."""
    return "" if value is None else to_text(value, where)


def to_list(value: Any, where: str) -> list[Any]:
    """A list. Raises UserError on something else."""
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
            is_exact = isinstance(value, int | str) and "." not in str(value)
            return int(value) if is_exact else int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{where}: expected a number, found {value!r}")


def to_letter(value: Any, options: Collection[str], where: str) -> str:
    """The letter of an option, in any case, spaces around it passed over.

    Raises:
        UserError: none of the options' letters.
    """
    letter = str(value).strip().upper()
    if letter not in list(options):
        listed = ", ".join(options) or "none there"
        raise UserError(f"{where}: expected the letter of an option ({listed}), found {value!r}")
    return letter


def to_yes_no(value: Any, where: str) -> str:
    """The word yes or no, spaces, case and one period apart. Raises UserError on others."""
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


def read_parquet(
    path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> list[Any]:
    """Rows of one parquet file as dicts, only these columns; None: all.

    Raises:
        UserError: unreadable, or a column of `columns` is missing.
    """
    file = _open_parquet(path)
    found = set(file.schema_arrow.names)
    require_keys(dict.fromkeys(file.schema_arrow.names), columns or (), str(path))
    extra = [name for name in optional if name in found]
    wanted = None if columns is None else [*columns, *extra]
    rows: list[Any] = file.read(columns=wanted).to_pylist()
    return rows


def list_columns(path: Path) -> list[str]:
    """The names of a parquet file's columns. Raises UserError where it is unreadable."""
    names: list[str] = _open_parquet(path).schema_arrow.names
    return names


def _open_parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(f"{path}: not a readable parquet file: {error}") from error


def parquet_image(path: Path, row: int, column: str) -> str:
    """A reference to an image inside a parquet file, for `images.open_question_image`."""
    return f"{PARQUET}{os.path.abspath(path)}#{row}#{column}"


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
