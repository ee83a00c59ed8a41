"""Rows with their images as parquet: a file, or a folder that `datasets` loads as its train split.

Image files go in as they are, byte for byte, under the names that the pool has for them. The column
is `datasets`' Image, so that whoever loads it gets decoded images.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prism_tune.data.files.formats import write_parquet
from prism_tune.data.layouts.image_values import EMBEDDED
from prism_tune.data.records import Pool
from prism_tune.errors import UserError
from prism_tune.run.writer import scratch_beside
from prism_tune.selection.export.record_rows import Row, to_parts

if TYPE_CHECKING:
    from datasets import Dataset

_GROUP_BYTES = 64 << 20
"""Of images in a row group: what a reader has to hold."""
_SHARD_BYTES = 512 << 20


def build_features(*, parts: bool) -> Any:
    """The columns as `datasets` has them.

    Args:
        parts: whether a message's content is a list of parts, or text.
    """
    from datasets import Features, Image, List, Value

    text = Value("string")
    content = List({"type": text, "text": text}) if parts else text
    return Features(
        {
            "id": text,
            "source": text,
            "images": List(Image()),
            "messages": List({"role": text, "content": content}),
        }
    )


def build_dataset(pool: Pool, ids: Sequence[str]) -> Dataset:
    """All records of a pool with content in parts; images are read from their files when asked.

    Args:
        pool: with `<image>` where it is to be.
        ids: what the records are called.
    """
    from datasets import Dataset

    rows = []
    for index in range(len(pool)):
        paths = [{"bytes": None, "path": str(path.resolve())} for path in pool.image_paths(index)]
        rows.append({**to_parts(pool[index]), "id": ids[index], "images": paths})
    return Dataset.from_list(rows, features=build_features(parts=True))


def write_file(pool: Pool, rows: Iterable[Row], path: Path) -> None:
    """One parquet file, replaced atomically."""
    schema = build_features(parts=False).arrow_schema
    groups = (pa.Table.from_pylist(group, schema=schema) for group in _group(pool, rows))
    write_parquet(path, schema, groups)


def write_folder(pool: Pool, rows: Iterable[Row], folder: Path) -> None:
    """A new folder of parquet files, which appears whole."""
    with scratch_beside(folder) as scratch:
        made = scratch / folder.name
        made.mkdir()
        _write_shards(pool, rows, made)
        os.replace(made, folder)


def _write_shards(pool: Pool, rows: Iterable[Row], folder: Path) -> None:
    schema = build_features(parts=True).arrow_schema
    groups = _group(pool, rows)
    for number in itertools.count():
        path = folder / f"train-{number:05d}.parquet"
        with pq.ParquetWriter(path, schema) as shard:
            for group in groups:
                shard.write_table(pa.Table.from_pylist(group, schema=schema))
                if path.stat().st_size > _SHARD_BYTES:
                    break
            else:
                break


def _group(pool: Pool, rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows with their images' bytes, so many at a time as fit a row group."""
    group: list[Row] = []
    num_bytes = 0
    for index, row in enumerate(rows):
        images = _read_images(pool, index)
        group.append({**row, "images": images})
        num_bytes += sum(len(image["bytes"]) for image in images)
        if num_bytes > _GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _read_images(pool: Pool, index: int) -> list[dict[str, Any]]:
    """Raises UserError naming record and file."""
    images = []
    for name, path in zip(pool.images(index), pool.image_paths(index), strict=True):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{pool.describe(index)}: image {path}: {error.strerror}") from error
        images.append({"bytes": content, "path": None if name.startswith(EMBEDDED) else name})
    return images
