"""Where a pool's records come from: the reader of what `data.records` names.

In: a file, a folder or a hub id. Out: its records one by one, each with its own JSON text, what
stands for its content, and the rows of a dataset that a subset is made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa

from prism_tune.config.plugins import describe_plugin
from prism_tune.config.pool_paths import part_split
from prism_tune.data.adapt import Reading
from prism_tune.data.embedded_images import EmbeddedImages, RowKeys
from prism_tune.data.files.arrow_datasets import (
    count_rows,
    find_tars,
    is_dataset,
    list_files,
    open_dataset,
    read_rows,
    take_rows,
)
from prism_tune.data.files.folders import Kind, is_saved, list_pool, name_folders
from prism_tune.data.files.formats import (
    Format,
    detect_format,
    read_json_file,
    read_parquet,
)
from prism_tune.data.files.json_text import ReadRecord
from prism_tune.data.files.plugged import find_reader
from prism_tune.data.files.tars import read_samples, take_samples
from prism_tune.data.layouts.media import stand_for
from prism_tune.data.layouts.samples import RefusedSample, join_sample

_SAMPLED_BYTES = 1 << 20


FiledRecord = tuple[str, bytes, Any]
"""A record behind the folder of its file, where the pool's are told apart by it, else ""."""


@dataclass(frozen=True)
class Source:
    """Where records come from; `state` stands for the content."""

    name: str
    format: Format
    state: list[Any]
    read: Callable[[], Iterator[FiledRecord]]


def open_source(records: str, reading: Reading, embedded: EmbeddedImages) -> Source:
    """Find what `data.records` names, and how it is read.

    Args:
        records: a file, a folder or a hub id.
        reading: which keys hold what.
        embedded: takes the images that records hold themselves.

    Raises:
        UserError: it is not there, or of a kind that cannot be read.
    """
    keys = RowKeys(frozenset(reading.columns.keys["image"]), reading.read_keys)

    def name_images(rows: Iterator[dict[str, Any]]) -> Iterator[ReadRecord]:
        for row in rows:
            joined = join_sample(row, reading.columns)
            if isinstance(joined, RefusedSample):
                described = embedded.detach(joined.described, RowKeys())
                yield json.dumps(described, default=_describe).encode(), joined
                continue
            detached = embedded.detach(joined, keys)
            yield json.dumps(detached, default=_describe).encode(), detached

    path = Path(records)
    read_plugged = find_reader(path)
    if read_plugged is not None:
        state = [*_read_state(path), describe_plugin("READERS", path.suffix)]
        return Source(records, "jsonl", state, lambda: _file(name_images(read_plugged(path))))
    folder, split = part_split(records)
    if folder.is_dir() and not is_saved(folder):
        return _open_folder(records, *list_pool(folder, split), folder, name_images)
    if is_dataset(records):
        tars = find_tars(records)
        if tars is not None:
            state = [_read_state(path) for path in tars]
            read = lambda: _file(name_images(read_samples(tars)))  # noqa: E731
            return Source(records, "dataset", state, read)
        dataset = open_dataset(records)
        read = lambda: _file(name_images(read_rows(dataset, records)))  # noqa: E731
        return Source(records, "dataset", list_files(dataset), read)
    file_format = detect_format(path)
    if file_format == "parquet":
        read = lambda: _file(name_images(read_parquet(path)))  # noqa: E731
        return Source(records, "parquet", _read_state(path), read)
    return Source(records, file_format, _read_state(path), lambda: _file(read_json_file(path)))


def _open_folder(
    records: str,
    kind: Kind,
    files: Sequence[Path],
    folder: Path,
    name_images: Callable[[Iterator[dict[str, Any]]], Iterator[ReadRecord]],
) -> Source:
    """The files of one kind in a folder, each perhaps of a configuration's."""
    folders = name_folders(folder, files)
    told_apart: list[Any] = [folders] if any(folders) else []

    def read_each(read: Callable[[Path], Iterator[ReadRecord]]) -> Iterator[FiledRecord]:
        for name, path in zip(folders, files, strict=True):
            yield from _file(read(path), repeat(name))

    if kind in ("json", "jsonl"):
        state = [*map(_read_state, files), *told_apart]
        return Source(records, "jsonl", state, lambda: read_each(read_json_file))
    if kind == "webdataset":
        state = [*map(_read_state, files), *told_apart]
        read_tar = lambda path: name_images(read_samples([path]))  # noqa: E731
        return Source(records, "dataset", state, lambda: read_each(read_tar))
    dataset = open_dataset(records)
    state = [*list_files(dataset), *told_apart]
    counts = count_rows(files) if told_apart else [len(dataset)]
    assert sum(counts) == len(dataset)  # the files are read whole, in their order
    of_rows = lambda: chain.from_iterable(map(repeat, folders, counts))  # noqa: E731
    rows = lambda: name_images(read_rows(dataset, records))  # noqa: E731
    return Source(records, "dataset", state, lambda: _file(rows(), of_rows()))


def _file(
    records: Iterable[ReadRecord], folders: Iterable[str] = repeat("")
) -> Iterator[FiledRecord]:
    for folder, (raw, value) in zip(folders, records, strict=False):
        yield folder, raw, value


def _describe(value: Any) -> str:
    """What JSON has no word for, in a record's own text."""
    return stand_for(value) if isinstance(value, bytes) else str(value)


def take_dataset(records: str, positions: Sequence[int]) -> tuple[pa.Schema, Iterable[pa.Table]]:
    """The rows of a dataset at `positions`, as tables."""
    tars = find_tars(records)
    if tars is not None:
        return take_samples(tars, positions)
    return take_rows(open_dataset(records), positions)


def _read_state(source: Path) -> list[Any]:
    """Name, size, modification time, and a hash of the first and last MiB."""
    stat = source.stat()
    with source.open("rb") as file:
        head = file.read(_SAMPLED_BYTES)
        file.seek(max(0, stat.st_size - _SAMPLED_BYTES))
        sampled = hashlib.sha256(head + file.read()).hexdigest()
    return [str(source.resolve()), stat.st_size, stat.st_mtime_ns, sampled]
