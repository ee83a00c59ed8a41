"""JSON texts record by record, with the memory of a few: lists, and JSON lines.

An open file goes in; every record's own text, letter for letter, and its value come out.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prism_tune.errors import UserError

ReadRecord = tuple[bytes, Any]

_CHUNK_CHARACTERS = 1 << 24
_LARGEST_RECORD_CHARACTERS = 1 << 26
_BLANKS = "\ufeff \t\r\n"
_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_lines(path: Path, file: io.TextIOBase) -> Iterator[ReadRecord]:
    """Walk JSON lines; `path` is for messages.

    Raises:
        UserError: a line that is no JSON, naming it.
    """
    is_first = True
    for number, line in enumerate(file, start=1):
        text = line.strip().strip(_BLANKS)
        if not text:
            continue
        try:
            yield text.encode(), json.loads(text)
        except (ValueError, RecursionError) as error:
            hint = ""
            if is_first and not text.endswith("}"):  # an object over several lines
                hint = "; expected a record a line, or a list of records"
            raise UserError(f"{path}: line {number}: {explain(error)}{hint}") from error
        is_first = False


def read_list(path: Path, file: io.TextIOBase) -> Iterator[ReadRecord]:
    """Walk a JSON list through a sliding window of the text; `path` is for messages.

    Raises:
        UserError: broken JSON, naming the record.
    """
    window = _Window(path, file)
    window.take("[")
    if window.take("]", required=False):
        return window.finish()
    while True:
        yield window.take_value()
        if not window.take(",", required=False):
            window.take("]")
            return window.finish()


class _Window:
    """The unread text of a JSON file, refilled a chunk at a time."""

    def __init__(self, path: Path, file: io.TextIOBase) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._start = 0
        self._at_end = False
        self._num_records = 0

    def take(self, mark: str, *, required: bool = True) -> bool:
        """Skip blanks and `mark`; say whether it was there."""
        self._skip_blanks()
        if self._text.startswith(mark, self._start):
            self._start += len(mark)
            return True
        if required:
            found = self._text[self._start : self._start + 20]
            problem = f"expected {mark!r}, found {found!r}" if found else "the file ends"
            raise self._broken(f"not valid JSON: {problem}")
        return False

    def take_value(self) -> ReadRecord:
        """The next JSON value and its text."""
        self._skip_blanks()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._start)
            except (ValueError, RecursionError) as error:
                if self._at_end or not isinstance(error, json.JSONDecodeError):
                    raise self._broken(explain(error)) from error
                if len(self._text) - self._start > _LARGEST_RECORD_CHARACTERS:
                    raise self._broken(
                        f"over {_LARGEST_RECORD_CHARACTERS:,} characters, the most that a record "
                        "of a JSON list may have; a quote or a bracket may be missing; as JSON "
                        "lines, records of any length are read"
                    ) from error
                self._refill()
                continue
            if end < len(self._text) or self._at_end:
                text = self._text[self._start : end]
                self._start = end
                self._num_records += 1
                return text.encode(), value
            self._refill()

    def finish(self) -> None:
        """Refuse text behind the list."""
        self._skip_blanks()
        if self._start < len(self._text):
            raise self._broken("not valid JSON: text after the end of the list")

    def _skip_blanks(self) -> None:
        while True:
            blank = _BLANK.match(self._text, self._start)
            assert blank is not None
            self._start = blank.end()
            if self._start < len(self._text) or self._at_end:
                return
            self._refill()

    def _refill(self) -> None:
        chunk = self._file.read(_CHUNK_CHARACTERS)
        self._at_end = not chunk
        self._text = self._text[self._start :] + chunk
        self._start = 0

    def _broken(self, problem: str) -> UserError:
        return UserError(f"{self._path}: record {self._num_records}: {problem}")


def explain(error: Exception) -> str:
    """What is wrong with a piece of JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, RecursionError):
        return "lists and objects are nested too deeply to be read"
    return f"a number of more than {sys.get_int_max_str_digits():,} digits, which is not read"
