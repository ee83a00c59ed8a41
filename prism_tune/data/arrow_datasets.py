"""Pools that `datasets` reads: a hub id, an Arrow file, a folder of these or of `save_to_disk`.

In: `data.records` as one of these. Out: rows, and a chosen part of them as a parquet file.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prism_tune.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(:(?P<split>[\w.-]+))?$")
_FILE_SUFFIXES = {".json", ".jsonl", ".parquet", ".pq", ".arrow"}


def is_dataset(records: str) -> bool:
    """Whether `data.records` is a folder or an Arrow file, or may be a hub id.

    A hub id is `owner/name` or `owner/name:split`.
    """
    path = Path(records)
    if path.exists():
        return path.is_dir() or path.suffix == ".arrow"
    return path.suffix not in _FILE_SUFFIXES and _HUB_ID.match(records) is not None


def open_dataset(records: str) -> Dataset:
    """The dataset; of a hub id the split behind the colon, else "train".

    Raises:
        UserError: it cannot be read, or holds images (bytes) instead of paths.
    """
    from datasets import DatasetDict
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        dataset = _load_local(Path(records)) if Path(records).exists() else _load_hub(records)
    except (DatasetGenerationError, DatasetNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"data.records: {records!r} is neither a file nor a dataset that can be read: "
            f"{(str(error).splitlines() or [''])[0]}; check the path or the hub id, the network "
            "and HF_TOKEN"
        ) from error
    if isinstance(dataset, DatasetDict):
        splits = ", ".join(f"{records}/{split}" for split in dataset)
        raise UserError(f"data.records: {records} holds several splits; name one: {splits}")
    _refuse_bytes(records, dataset)
    return dataset


def list_files(dataset: Dataset) -> list[tuple[str, int, int]]:
    """Name, size and modification time of the Arrow files behind a dataset."""
    stats = [(name, Path(name).stat()) for name in (f["filename"] for f in dataset.cache_files)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def read_rows(dataset: Dataset) -> Iterator[tuple[bytes, Any]]:
    """Every row as JSON text and as a value."""
    for row in dataset:
        yield json.dumps(row, default=str).encode(), row


def take_rows(dataset: Dataset, positions: Sequence[int]) -> bytes:
    """The rows at `positions` as a parquet file."""
    table: pa.Table = dataset.select(positions).with_format("arrow")[:]
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer)
    return buffer.getvalue()


def _load_local(folder: Path) -> Any:
    from datasets import load_dataset, load_from_disk

    if folder.is_file():
        return load_dataset("arrow", data_files=[str(folder)], split="train")
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        return load_from_disk(str(folder))
    for kind, pattern in (("parquet", "*.parquet"), ("arrow", "*.arrow")):
        files = [str(path) for path in sorted(folder.rglob(pattern))]
        if files:
            return load_dataset(kind, data_files=files, split="train")
    raise ValueError("a folder without parquet or Arrow files")


def _load_hub(records: str) -> Any:
    from datasets import load_dataset

    name, _, split = records.partition(":")
    return load_dataset(name, split=split or "train")


def _refuse_bytes(records: str, dataset: Dataset) -> None:
    for field in dataset.features.arrow_schema:
        if "binary" in str(field.type):
            raise UserError(
                f"data.records: {records}: column `{field.name}` holds bytes; write the images as "
                "files and their paths into the column"
            )
