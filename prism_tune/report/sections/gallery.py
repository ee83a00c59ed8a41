"""Gallery: the records themselves, in several orders, with what stands closest to them.

Every record of the pool can be found and marked; those that the page shows first have thumbnails,
neighbours and all of their turns, which `prism-tune report --serve` adds for the others.

Shape legend: N records of the pool, G groups.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from prism_tune.config.sections import SelectionConfig
from prism_tune.errors import UserError
from prism_tune.features.closest import Neighbours
from prism_tune.report.answer_balance import HEADER, list_balance
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
from prism_tune.report.relatives import RELATIVE_COSINE, Labels, Relatives, closest_kept
from prism_tune.report.section import PageFolder, Section, add_cards
from prism_tune.report.thumbnails import write_thumbnails
from prism_tune.report.views import (
    PAGE_RECORDS,
    PREPARED_RECORDS,
    Cut,
    ViewName,
    choose_prepared,
    find_cut,
    order_labelled,
    order_views,
    uid_numbers,
)
from prism_tune.results.records import RecordTable
from prism_tune.results.runs import FinishedRun

_SCRIPTS = ("gallery_marks.js", "gallery_data.js", "gallery_card.js", "gallery_dialog.js")
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
    records = run.records
    cut = find_cut(records, per_source=run.config.selection.scope == "per_source")
    numbers_N = uid_numbers(records)
    relatives = Relatives(run, records)
    labels = relatives.label()
    prepared = _choose(records, cut, numbers_N, labels, relatives)
    neighbours = relatives.find(prepared)
    closest_N = np.full(len(records), np.nan, dtype=np.float32)
    for row, found in neighbours.items():
        closest_N[row] = closest_kept(found, records)
    _write_prepared(run, page, prepared, neighbours)
    _write_columns(records, page, numbers_N, labels, closest_N)
    num_chunks, answers = write_chunks(run.pool, records.selected_N, page)
    meta = _describe(run, records, cut) | {
        "chunks": num_chunks,
        "prepared": len(prepared),
        "noNeighbours": relatives.absent,
        "images": _link_images(run, page),
    }
    values = {
        "ready": True,
        "num_records": len(records),
        "num_prepared": len(prepared),
        "num_first": min(PAGE_RECORDS, int(records.is_ranked_N.sum())),
        "explained": _explain(run.config.selection),
        "views": _list_views(run.config.selection, labels, closest_N),
        "per_source": run.config.selection.scope == "per_source",
        "alone": _count_alone(records, closest_N),
        "sources": _count_sources(records),
        "clusters": _count_clusters(labels, records),
        "num_kept": int(records.selected_N.sum()),
        "searched": {"turns": CHUNK_TURNS, "characters": CHUNK_CHARACTERS},
        "command": f"prism-tune report {run.run.root} --serve",
        "answer_header": HEADER,
        "answers": list_balance(answers),
    }
    scripts = (
        page.add_data("gallery", meta),
        *add_cards(page),
        *map(page.add_asset, (*_SCRIPTS, "gallery.js")),
    )
    styles = (page.add_asset("cards.css"), page.add_asset("gallery.css"))
    return Section("gallery", "Gallery", "gallery.html", values, scripts, styles)


def describe_one(run: FinishedRun, relatives: Relatives, row: int) -> bytes:
    """JSON of one record as `data/gallery-prepared.js` has them, by the server for its dialog."""
    return orjson.dumps(_prepare(run, [row], relatives.find([row]), {}))


def _why_not(run: FinishedRun) -> str:
    if run.records is None:
        return "The selection of this run has not finished: there are no verdicts to show yet."
    try:
        num_records = len(run.pool)
    except UserError as error:
        return f"The pool cannot be opened: {error}"
    return "" if num_records else "The pool is empty."


def _choose(
    records: RecordTable,
    cut: Cut,
    numbers_N: np.ndarray[Any, Any],
    labels: Labels,
    relatives: Relatives,
) -> list[int]:
    prepared = choose_prepared(records, order_views(records, cut, numbers_N))
    if len(prepared) == len(records):
        return prepared
    groups = order_labelled(labels.group_N, records.selected_N, numbers_N)
    clusters = order_labelled(labels.cluster_N, np.zeros(len(records), dtype=bool), numbers_N)
    first = [rows[: 2 * PAGE_RECORDS].tolist() for rows in (groups, clusters)]
    return list(dict.fromkeys(chain(prepared, *first, relatives.find_lonely())))


def _write_prepared(
    run: FinishedRun, page: PageFolder, rows: Sequence[int], neighbours: Mapping[int, Neighbours]
) -> None:
    """`data/gallery-prepared.js`: cards of the rows and of their neighbours, by row."""
    mentioned = {row for found in neighbours.values() for row in _mentioned(found)}
    thumbs = write_thumbnails(run, sorted(mentioned | set(rows)), page.root)
    page.add_packed("gallery-prepared", orjson.dumps(_prepare(run, rows, neighbours, thumbs)))


def _prepare(
    run: FinishedRun,
    rows: Sequence[int],
    neighbours: Mapping[int, Neighbours],
    thumbs: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Cards of the rows, and shorter ones of the records that their neighbours are."""
    shown = set(rows)
    mentioned = sorted({row for found in neighbours.values() for row in _mentioned(found)} - shown)
    cards, stubs = {}, {}
    for row, record in read_scattered(run.pool, rows):
        card = describe_record(record, PREPARED_TURNS, PREPARED_CHARACTERS)
        found = neighbours.get(row)
        cards[str(row)] = [*card, thumbs.get(card[0], ()), found and asdict(found)]
    for row, record in read_scattered(run.pool, mentioned):
        card = describe_record(record)
        stubs[str(row)] = [*card, thumbs.get(card[0], ())]
    return {"cards": cards, "stubs": stubs}


def _mentioned(found: Neighbours) -> Iterable[int]:
    yield from found.same_image
    for neighbour in (*found.nearest, *found.nearest_kept):
        yield neighbour.row


def _write_columns(
    records: RecordTable,
    page: PageFolder,
    numbers_N: np.ndarray[Any, Any],
    labels: Labels,
    closest_N: np.ndarray[Any, Any],
) -> None:
    """`data/gallery-columns.js`: what every record is ordered and filtered by, column by column."""
    columns = (
        numbers_N.astype("<u4"),
        records.score_N.astype("<f4"),
        records.rank_N.astype("<u4"),
        records.sources.codes_N.astype("<u4"),
        records.reasons.codes_N.astype("<u4"),
        labels.group_N.astype("<u4"),
        labels.cluster_N.astype("<u4"),
        closest_N.astype("<f4"),
        records.selected_N.astype("u1"),
    )
    page.add_packed("gallery-columns", b"".join(column.tobytes() for column in columns))


def _describe(run: FinishedRun, records: RecordTable, cut: Cut) -> dict[str, Any]:
    """What the page has to know before it opens a column or a chunk."""
    return {
        "run": run.name,
        "pool": run.pool.fingerprint,
        "records": len(records),
        "perChunk": CHUNK_RECORDS,
        "perPage": PAGE_RECORDS,
        "sources": records.sources.names,
        "reasons": records.reasons.names,
        "perSource": run.config.selection.scope == "per_source",
        "relative": RELATIVE_COSINE,
        "kept": cut.kept_G,
        "sizes": cut.size_G,
    }


def _link_images(run: FinishedRun, page: PageFolder) -> str | None:
    """The way from the page to the image folder; None where there is none (another drive)."""
    folder, home = run.pool.image_folders.base.resolve(), page.home.resolve()
    try:
        return Path(os.path.relpath(folder, home)).as_posix()
    except ValueError:
        return None


def _explain(selection: SelectionConfig) -> str:
    return _REDUNDANCY.get(selection.scorer, "") if selection.keep == "low" else ""


def _list_views(
    selection: SelectionConfig, labels: Labels, closest_N: np.ndarray[Any, Any]
) -> list[tuple[ViewName, str]]:
    """(name, label), the one shown first first; without those that have nothing to show."""
    high, low = "Highest score", "Lowest score"
    if selection.scorer in _REDUNDANCY:
        high, low = "Most redundant", "Least redundant"
    views: list[tuple[ViewName, str]] = [
        ("high", high),
        ("low", low),
        ("cut", "Around the cut"),
        ("draw", "Random draw"),
    ]
    if not np.isnan(closest_N).all():
        views.append(("alone", "Dropped, nothing kept is like it"))
    if labels.group_N.any():
        views.append(("groups", "Near-duplicates"))
    if labels.cluster_N.any():
        views.append(("clusters", "Clusters"))
    return views


def _count_alone(records: RecordTable, closest_N: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Dropped records without a kept relative, of how many that were looked at."""
    looked_N = ~records.selected_N & ~np.isnan(closest_N)
    return {
        "number": int((looked_N & (closest_N < RELATIVE_COSINE)).sum()),
        "looked": int(looked_N.sum()),
        "is_all": len(records) <= PREPARED_RECORDS,
        "cosine": RELATIVE_COSINE,
    }


def _count_sources(records: RecordTable) -> list[tuple[int, str, int]]:
    """(code, name, records), the largest first."""
    sizes = np.bincount(records.sources.codes_N, minlength=len(records.sources.names))
    order = np.argsort(-sizes, kind="stable").tolist()
    return [(code, records.sources.names[code], int(sizes[code])) for code in order]


def _count_clusters(labels: Labels, records: RecordTable) -> list[tuple[int, int, int]]:
    """(number, records, kept), the largest first."""
    sizes = np.bincount(labels.cluster_N)
    kept = np.bincount(labels.cluster_N[records.selected_N], minlength=len(sizes))
    return [(number, int(sizes[number]), int(kept[number])) for number in range(1, len(sizes))]
