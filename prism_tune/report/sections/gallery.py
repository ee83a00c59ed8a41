"""Gallery: the records themselves, in four orders, with what stands closest to them.

Every record of the pool can be found; those that the page shows first have thumbnails and
neighbours, which `prism-tune report --serve` adds thumbnails of the others to.

Shape legend: N records of the pool, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from prism_tune.config.sections import SelectionConfig
from prism_tune.errors import UserError
from prism_tune.features.closest import Candidates, Neighbours, find_neighbours
from prism_tune.report.cards import (
    CHUNK_CHARACTERS,
    CHUNK_RECORDS,
    CHUNK_TURNS,
    PREPARED_CHARACTERS,
    PREPARED_TURNS,
    describe_record,
    read_scattered,
    write_chunks,
)
from prism_tune.report.section import PageFolder, Section, add_cards
from prism_tune.report.thumbnails import write_thumbnails
from prism_tune.report.views import (
    PAGE_RECORDS,
    Cut,
    ViewName,
    choose_prepared,
    find_cut,
    find_groups,
    order_views,
    uid_numbers,
)
from prism_tune.results.records import RecordTable
from prism_tune.results.runs import FinishedRun

_REDUNDANCY = {
    "prism": "PRISM drops the records whose features point where those of their group point on the "
    "whole. Beside a dropped record stand the kept ones that are most like it.",
    "semdedup": "SemDeDup drops the records that come close to another. Beside a dropped record "
    "stand the kept ones that are most like it.",
}
"""Selectors whose high score means: like others."""


def build(run: FinishedRun, page: PageFolder) -> Section:
    """The section, its data in `data/gallery*.js` and the thumbnails of what it shows first."""
    absent = _why_not(run)
    if absent or run.records is None:
        return Section("gallery", "Gallery", "gallery.html", {"ready": False, "reason": absent})
    cut = find_cut(run.records, per_source=run.config.selection.scope == "per_source")
    numbers_N = uid_numbers(run.records)
    prepared = choose_prepared(run.records, order_views(run.records, cut, numbers_N))
    neighbours, no_neighbours = _neighbours(run, run.records, prepared)
    _write_prepared(run, page, prepared, neighbours)
    _write_columns(run.records, page, numbers_N)
    num_chunks = write_chunks(run.pool, page)
    meta = _describe(run, run.records, cut) | {"chunks": num_chunks, "noNeighbours": no_neighbours}
    scripts = (
        page.add_data("gallery", meta),
        *add_cards(page),
        page.add_asset("gallery_data.js"),
        page.add_asset("gallery_card.js"),
        page.add_asset("gallery.js"),
    )
    values = {
        "ready": True,
        "num_records": len(run.records),
        "num_prepared": len(prepared),
        "num_first": min(PAGE_RECORDS, int(run.records.is_ranked_N.sum())),
        "explained": _explain(run.config.selection),
        "views": _describe_views(run.config.selection),
        "sources": _count_sources(run.records),
        "num_kept": int(run.records.selected_N.sum()),
        "searched": {"turns": CHUNK_TURNS, "characters": CHUNK_CHARACTERS},
        "command": f"prism-tune report {run.run.root} --serve",
    }
    styles = (page.add_asset("cards.css"), page.add_asset("gallery.css"))
    return Section("gallery", "Gallery", "gallery.html", values, scripts, styles)


def _why_not(run: FinishedRun) -> str:
    if run.records is None:
        return "The selection of this run has not finished: there are no verdicts to show yet."
    try:
        num_records = len(run.pool)
    except UserError as error:
        return f"The pool cannot be opened: {error}"
    return "" if num_records else "The pool is empty."


def _neighbours(
    run: FinishedRun, records: RecordTable, rows: Sequence[int]
) -> tuple[dict[int, Neighbours], str]:
    """Neighbours by row, and why there are none."""
    selection = run.config.selection
    if selection.scorer == "alignment" or selection.features == "pair":
        return {}, "This selector compares a record's image with its own text, not records."
    if run.features is None:
        return {}, "There are no features to compare records by."
    group_N = find_groups(records, per_source=selection.scope == "per_source")
    candidates = Candidates(run.features, records.is_ranked_N, records.selected_N, group_N)
    return find_neighbours(candidates, selection.centering, rows), ""


def _write_prepared(
    run: FinishedRun, page: PageFolder, rows: Sequence[int], neighbours: dict[int, Neighbours]
) -> None:
    """`data/gallery-prepared.js`: cards of the rows and of their neighbours, by row."""
    shown = set(rows)
    mentioned = sorted({row for found in neighbours.values() for row in _mentioned(found)} - shown)
    thumbs = write_thumbnails(run, [*rows, *mentioned], page.root)
    cards = {}
    for row, record in read_scattered(run.pool, rows):
        card = describe_record(record, PREPARED_TURNS, PREPARED_CHARACTERS)
        found = neighbours.get(row)
        cards[str(row)] = [*card, thumbs.get(card[0]), found and asdict(found)]
    stubs = {}
    for row, record in read_scattered(run.pool, mentioned):
        card = describe_record(record)
        stubs[str(row)] = [*card, thumbs.get(card[0])]
    page.add_packed("gallery-prepared", orjson.dumps({"cards": cards, "stubs": stubs}))


def _mentioned(found: Neighbours) -> Iterable[int]:
    yield from found.same_image
    for neighbour in (*found.nearest, *found.nearest_kept):
        yield neighbour.row


def _write_columns(records: RecordTable, page: PageFolder, numbers_N: np.ndarray[Any, Any]) -> None:
    """`data/gallery-columns.js`: what every record is ordered and filtered by, column by column."""
    columns = (
        numbers_N.astype("<u4"),
        records.score_N.astype("<f4"),
        records.rank_N.astype("<u4"),
        records.sources.codes_N.astype("<u4"),
        records.reasons.codes_N.astype("<u4"),
        records.selected_N.astype("u1"),
    )
    page.add_packed("gallery-columns", b"".join(column.tobytes() for column in columns))


def _describe(run: FinishedRun, records: RecordTable, cut: Cut) -> dict[str, Any]:
    """What the page has to know before it opens a column or a chunk."""
    return {
        "records": len(records),
        "perChunk": CHUNK_RECORDS,
        "perPage": PAGE_RECORDS,
        "sources": records.sources.names,
        "reasons": records.reasons.names,
        "perSource": run.config.selection.scope == "per_source",
        "kept": cut.kept_G,
        "sizes": cut.size_G,
    }


def _explain(selection: SelectionConfig) -> str:
    return _REDUNDANCY.get(selection.scorer, "") if selection.keep == "low" else ""


def _describe_views(selection: SelectionConfig) -> list[tuple[ViewName, str]]:
    """(name, label), the one shown first first."""
    high, low = "Highest score", "Lowest score"
    if selection.scorer in _REDUNDANCY:
        high, low = "Most redundant", "Least redundant"
    return [("high", high), ("low", low), ("cut", "Around the cut"), ("draw", "Random draw")]


def _count_sources(records: RecordTable) -> list[tuple[int, str, int]]:
    """(code, name, records), the largest first."""
    sizes = np.bincount(records.sources.codes_N, minlength=len(records.sources.names))
    order = np.argsort(-sizes, kind="stable").tolist()
    return [(code, records.sources.names[code], int(sizes[code])) for code in order]
