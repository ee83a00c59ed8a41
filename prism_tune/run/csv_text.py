"""CSV that a spreadsheet shows and does not compute.

A cell that begins with `=`, `+`, `-`, `@` (also in full width), a tab or a line break may be run as
a formula by the program that opens the file (OWASP, CSV injection): texts of models and of other
people's data get a single quote before it. Numbers are written as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TypeVar

Value = TypeVar("Value")
_BEGINNINGS = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


def write_csv(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, a line feed behind each; None is an empty cell.

    `csv` leaves a lone carriage return unquoted, which a reader takes for the end of a row.
    """
    out = io.StringIO()
    plain = csv.writer(out, lineterminator="\n")
    quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        cells = ["" if value is None else escape_formula(value) for value in row]
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting if has_return else plain).writerow(cells)
    return out.getvalue()


def escape_formula(value: Value) -> Value | str:
    """The value; a text that begins as a formula with a single quote before it.

    A lone "-" is a table's mark of what cannot have a value, and computes nothing.
    """
    is_formula = isinstance(value, str) and value.startswith(_BEGINNINGS) and value != "-"
    return f"'{value}" if is_formula else value
