"""Files as people have answers in them: JSON in several shapes, and tables.

A path in, records out, each with the words for where it stands.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    describe_undecodable,
    open_text,
    parse_json,
    read_objects,
    read_parquet,
    read_text,
)

ID_KEYS = ("question_id", "questionId", "id", "image")
TEXT_KEYS = ("text", "prediction", "response", "answer")
"""In this order; beside a prediction or a response, `answer` is the reference."""
TABLES = (".csv", ".tsv", ".xlsx", ".parquet")


def read_answer_objects(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The records of an answer file; one object {id: answer} becomes a record for each.

    An answer that is null (NaN; in a table, which cannot tell them apart, also an empty cell or
    "nan") is none: its record is left out, and the question is missing. An empty text in JSON is
    what a model said.

    Raises:
        UserError: as `annotations.read_objects` and `read_table`.
    """
    is_table = path.suffix.lower() in TABLES
    found = read_table(path) if is_table else _read_json(path)
    return [(where, record) for where, record in found if not _is_unanswered(record, is_table)]


def _read_json(path: Path) -> list[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    if not text.lstrip().startswith("{"):
        return read_objects(path)
    first = text.strip().partition("\n")[0]
    is_whole = first.strip() == text.strip() or not _is_json(first)
    if is_whole and _is_json(text):
        content = parse_json(text, str(path))
        if not any(key in content for key in ID_KEYS):
            return [
                (f"{path}, {key}", {"question_id": key, "text": answer})
                for key, answer in content.items()
            ]
        return [(f"{path}, line 1", content)]
    return read_objects(path)


def read_whole(path: Path) -> Any:
    """An answer file as one JSON value; None where it is no such file (JSON lines, for example).

    Raises:
        UserError: missing.
    """
    text = read_text(path)
    return parse_json(text, "") if _is_json(text) else None


def _is_json(text: str) -> bool:
    try:
        parse_json(text, "")
    except UserError:
        return False
    return True


def read_table(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a csv, tsv, xlsx or parquet by its columns' names; empty xlsx cells are None.

    Raises:
        UserError: unreadable, or a row with more or fewer cells than the first.
    """
    if path.suffix.lower() == ".parquet":
        found = enumerate(read_parquet(path))
        return [(f"{path}, row {number}", row) for number, row in found]
    rows = _read_xlsx(path) if path.suffix.lower() == ".xlsx" else _read_text_table(path)
    _, header = next(rows, ("", ()))
    names = ["" if name is None else str(name).strip() for name in header]
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise UserError(f"{path}: two columns {twice[0]!r}; expected one of each name")
    records = []
    for number, (line, cells) in enumerate(rows, 1):
        where = f"{path}, record {number}"
        if len(cells) != len(names):
            raise UserError(
                f"{where} ({line}): {len(cells)} columns, the header has {len(names)}; is the "
                "file complete?"
            )
        records.append((where, dict(zip(names, cells, strict=True))))
    return records


def _is_unanswered(record: Mapping[str, Any], is_table: bool) -> bool:
    answers = [record[key] for key in TEXT_KEYS if key in record]
    if not answers:
        return False
    if is_table and isinstance(answers[0], str):
        return answers[0].strip().lower() in ("", "nan")
    return answers[0] is None or bool(answers[0] != answers[0])


def _read_text_table(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    """Lines with cells; a csv's are parted by what its first line has most of."""
    csv.field_size_limit(sys.maxsize)
    with open_text(path) as file:
        try:
            first = file.readline()
            if "\0" in first:
                raise describe_undecodable(path, None)
            file.seek(0)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if cells:
                    yield f"line {reader.line_num}", cells
        except csv.Error as error:
            raise UserError(f"{path}: not readable as a table: {error}") from error
        except UnicodeDecodeError as error:
            raise describe_undecodable(path, error) from error


def _read_xlsx(path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    from openpyxl import load_workbook

    try:
        rows = load_workbook(path, read_only=True).worksheets[0].iter_rows(values_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, BadZipFile) as error:
        raise UserError(f"{path}: not a readable xlsx file: {error}") from error
    width = 0  # the first row's: behind a row's last filled cell some writers write none
    for number, cells in enumerate(rows, 1):
        if any(cell is not None for cell in cells):
            width = width or len(cells)
            yield f"row {number}", (*cells, *[None] * (width - len(cells)))
