"""What the gallery says of a record, and the files that hold it for every record of the pool.

Records go in; short lists of text come out: [uid, id, images, turns, number of turns], a turn being
[role, text]. A text that was cut ends with "…".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from prism_tune.data.records import Pool
from prism_tune.data.spawned import map_spawned
from prism_tune.report.answer_balance import AnswerCounts
from prism_tune.report.section import PageFolder
from prism_tune.schema import Record

Card = list[Any]

CHUNK_RECORDS = 10_000
CHUNK_TURNS, CHUNK_CHARACTERS = 2, 240
"""How much of a record the page can search."""

PREPARED_TURNS, PREPARED_CHARACTERS = 100, 20_000
"""Of a record whose dialog shows all of it; what lies beyond is counted there."""

_ROWS_PER_MAPPING = 500


def describe_record(
    record: Record, max_turns: int = CHUNK_TURNS, max_characters: int = CHUNK_CHARACTERS
) -> Card:
    """The card of a record; its own system line comes first, as a turn of that role."""
    spoken: list[tuple[str, str]] = [(turn.role, turn.text) for turn in record.turns]
    if record.system:
        spoken = [("system", record.system), *spoken]
    turns = [[role, shorten(text, max_characters)] for role, text in spoken[:max_turns]]
    return [record.uid, record.id, record.images, turns, len(spoken)]


def shorten(text: str, max_characters: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= max_characters else f"{text[: max_characters - 1].rstrip()}…"


def read_scattered(pool: Pool, rows: Sequence[int]) -> Iterator[tuple[int, Record]]:
    """Records from all over the pool, by row.

    Each touches some 200 KiB of the mapped file, which count as this process's memory until the
    file is unmapped: thousands of records would make a gigabyte.
    """
    for start in range(0, len(rows), _ROWS_PER_MAPPING):
        mapped = pool.reopen()
        yield from ((row, mapped[row]) for row in rows[start : start + _ROWS_PER_MAPPING])


def write_chunks(
    pool: Pool, kept_N: NDArray[np.bool_], page: PageFolder
) -> tuple[int, AnswerCounts]:
    """Write every record's card to `data/gallery-<number>.js`, `CHUNK_RECORDS` in each.

    Returns:
        The number of chunks, and which answers the records have.
    """
    starts = range(0, len(pool), CHUNK_RECORDS)
    chunks = [range(start, min(start + CHUNK_RECORDS, len(pool))) for start in starts]
    # A task opens the pool for itself, and what it has read of the mapped file counts as its memory
    # no longer than it lasts.
    tasks = [(number, rows, kept_N[rows.start : rows.stop]) for number, rows in enumerate(chunks)]
    answers = AnswerCounts()
    for of_chunk in map_spawned(partial(_write_chunk, pool, page), tasks, fewest=2):
        answers.merge(of_chunk)
    return len(chunks), answers


def _write_chunk(
    pool: Pool, page: PageFolder, chunk: tuple[int, range, NDArray[np.bool_]]
) -> AnswerCounts:
    number, rows, kept_K = chunk
    cards, answers = [], AnswerCounts()
    for row, is_kept in zip(rows, kept_K.tolist(), strict=True):
        record = pool[row]
        cards.append(describe_record(record))
        answers.add(record, is_kept=is_kept)
    page.add_packed(f"gallery-{number}", orjson.dumps(cards))
    return answers
