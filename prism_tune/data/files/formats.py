"""Reading and writing the files a pool may come in.

In: a JSON list, JSON lines or parquet file. Out: one (JSON bytes, parsed value) pair, or row, a
record, in the file's order, with the memory of a few records only; and the inverse, for a subset.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prism_tune.data.files.json_text import ReadRecord, read_lines, read_list
from prism_tune.errors import UserError, first_line
from prism_tune.run.partial import partial_file

Format = Literal["json", "jsonl", "parquet", "dataset"]

_PACKINGS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda path: pa.input_stream(str(path), compression="zstd"),
}
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What unpacking raises for a file that is cut or damaged."""

_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
_ROWS, _ROWS_WITH_BYTES = 1024, 32
_ROWS_OF_A_GROUP = 128
_ROWS_OF_A_PART, _ROWS_OF_A_TEXT_GROUP = 1 << 16, 1 << 20


def detect_format(path: Path) -> Format:
    """Tell the format by suffix, and JSON from JSON lines by the first character.

    Raises:
        UserError: missing or empty file, or one that starts with neither `[` nor `{`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (data.records)")
    head = _read_head(path)
    if path.suffix in {".parquet", ".pq"} or head.startswith(b"PAR1"):
        return "parquet"
    text = head.decode(_detect_encoding(head), errors="ignore").lstrip()
    if text.startswith("["):
        return "json"
    if text.startswith("{"):
        return "jsonl"
    raise UserError(
        f"{path}: expected a JSON list or one JSON object a line (packed or not), or a parquet, "
        f"Arrow or tar file; it starts {head[:20]!r}"
    )


def read_json_file(path: Path) -> Iterator[ReadRecord]:
    """Yield every record's own JSON text, in UTF-8, and its value.

    The text is the file's, letter for letter, so that numbers beyond 64 bits and unknown keys
    survive. Files in UTF-16 or UTF-32, with a byte order mark, or packed by gzip, bzip2, xz or
    Zstandard are read as well.

    Raises:
        UserError: broken JSON, encoding or packing, naming the record.
    """
    read = read_list if detect_format(path) == "json" else read_lines
    encoding = _detect_encoding(_read_head(path))
    try:
        with open_unpacked(path) as file, io.TextIOWrapper(file, encoding, newline="") as text:
            yield from read(path, text)
    except UnicodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
        raise UserError(f"{path}: not {name}: {error}") from error
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be unpacked, or is cut short: {error}") from error


def open_unpacked(path: Path) -> Any:
    """The file's bytes; of a packed one, told by how it begins, what is in it."""
    with path.open("rb") as file:
        start = file.read(6)
    for signature, open_packed in _PACKINGS.items():
        if start.startswith(signature):
            return open_packed(path)
    return path.open("rb")


def _read_head(path: Path) -> bytes:
    try:
        with open_unpacked(path) as file:
            head: bytes = file.read(4096)
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be unpacked, or is cut short: {error}") from error
    return head


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every row.

    Raises:
        UserError: the file is damaged, or no parquet file.
    """
    num_read = 0
    try:
        with pq.ParquetFile(path) as file:
            size = _ROWS_WITH_BYTES if holds_bytes(file.schema_arrow) else _ROWS
            for batch in _iterate(file, size):
                for row in batch.to_pylist():
                    yield row
                    num_read += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = first_line(error)
        if num_read == 0:
            raise UserError(f"{path}: not a parquet file, or a damaged one: {problem}") from error
        raise UserError(f"{path}: damaged behind record {num_read - 1}: {problem}") from error


def holds_bytes(schema: pa.Schema) -> bool:
    """Whether a column, or a part of one, is of bytes."""
    return any("binary" in str(field.type) for field in schema)


def _detect_encoding(head: bytes) -> str:
    found = json.detect_encoding(head[:4])
    return "utf-8-sig" if found == "utf-8" else found


def format_records(raws: Sequence[bytes], file_format: Literal["json", "jsonl"]) -> bytes:
    """The records as one file: a list with a record a line, or JSON lines."""
    if file_format == "jsonl":
        # A line break in JSON is a blank: in a string it would be written \\n.
        return b"".join(raw.translate(_ONE_LINE) + b"\n" for raw in raws)
    return b"[\n" + b",\n".join(raws) + b"\n]\n" if raws else b"[]\n"


def write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """A parquet file, replaced atomically.

    With images in it, in groups of a few rows, the same however the tables are cut, so that neither
    writer nor reader has to hold it; else as one.
    """
    with partial_file(path) as temporary:
        with pq.ParquetWriter(temporary, schema) as writer:
            for group in _regroup(tables, _ROWS_OF_A_GROUP if holds_bytes(schema) else None):
                writer.write_table(group)
        os.replace(temporary, path)


def take_parquet(path: Path, positions: Sequence[int]) -> tuple[pa.Schema, Iterable[pa.Table]]:
    """The rows of a parquet file at `positions`, in that order, a row group at a time."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
    wanted = np.asarray(positions, dtype=np.int64)
    size = _ROWS_WITH_BYTES if holds_bytes(schema) else _ROWS
    is_sorted = bool((np.diff(wanted) >= 0).all())
    rows = (_stream_rows if is_sorted else _arrange_rows)(path, wanted, size)
    if holds_bytes(schema):
        return schema, rows
    # In parts first, whatever batches the file gave: where a group is too large for one piece, its
    # pages begin where the pieces do.
    return schema, _regroup(_regroup(rows, _ROWS_OF_A_PART), _ROWS_OF_A_TEXT_GROUP)


def _stream_rows(path: Path, sorted_positions: NDArray[np.int64], size: int) -> Iterator[pa.Table]:
    """Batch by batch: Arrow takes rows of a longer table by joining it, and text has no room."""
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in _iterate(file, size):
            first, last = np.searchsorted(sorted_positions, [start, start + batch.num_rows])
            if first < last:
                rows = pa.array(sorted_positions[first:last] - start)
                yield pa.Table.from_batches([batch]).take(rows)
            start += batch.num_rows


def _arrange_rows(path: Path, positions: NDArray[np.int64], size: int) -> Iterator[pa.Table]:
    """The rows in any order; those that are taken are held meanwhile."""
    order = np.argsort(positions, kind="stable")
    taken = _stream_rows(path, positions[order], size)
    pieces = [piece for table in taken for piece in table.to_batches()]
    starts = np.cumsum([0, *map(len, pieces)])
    places = np.argsort(order)
    for first in range(0, len(places), size):
        asked = places[first : first + size]
        numbers = np.searchsorted(starts, asked, side="right") - 1
        held = zip(numbers, asked - starts[numbers], strict=True)
        yield pa.Table.from_batches([pieces[number].slice(row, 1) for number, row in held])


def _iterate(file: pq.ParquetFile, num_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows, a group after the other: asked for all at once, pyarrow keeps what it has read."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=num_rows, row_groups=[group])


def _regroup(tables: Iterable[pa.Table], num_rows: int | None) -> Iterator[pa.Table]:
    """The same rows in tables of `num_rows`, the last one shorter; None: as they come."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while num_rows is not None and sum(map(len, waiting)) >= num_rows:
            joined = pa.concat_tables(waiting)
            yield _join_pieces(joined.slice(0, num_rows))
            waiting = [joined.slice(num_rows)]
        if num_rows is None:
            yield waiting.pop()
    if rest := [table for table in waiting if len(table)]:
        yield _join_pieces(pa.concat_tables(rest))


def _join_pieces(table: pa.Table) -> pa.Table:
    """Its columns in one piece each; as it is where they hold more text than that has room for."""
    try:
        return table.combine_chunks()
    except pa.ArrowInvalid:
        return table
