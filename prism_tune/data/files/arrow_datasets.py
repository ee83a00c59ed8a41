"""Pools that `datasets` reads: a hub id, an Arrow file, a folder of these.

In: `data.records` as one of these, or what `save_to_disk` wrote. Out: rows, and a chosen part of
them as tables; of a webdataset its tars, which are read elsewhere (`tars.py`).
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prism_tune.config.hub_ids import has_hub_form, part_hub_id
from prism_tune.config.pool_paths import part_split
from prism_tune.data.files.folders import is_saved, list_pool
from prism_tune.data.files.formats import holds_bytes
from prism_tune.errors import UserError, first_line

if TYPE_CHECKING:
    from datasets import Dataset

_DAMAGE = (ValueError, KeyError, TypeError)
"""What `datasets` raises for files that are not what they should be."""

_CONFIGURATIONS = re.compile(r"[Aa]vailable(?: configs)?: \[(.*)\]")
"""How it lists them where one has to be named, or another was."""
_ROWS, _ROWS_WITH_BYTES = 1000, 32
_TARS = (".tar", ".tar.gz", ".tgz")


def is_dataset(records: str) -> bool:
    """Whether `data.records` is a folder, an Arrow file or a tar, or may be a hub id.

    A hub id is `owner/name`, `owner/name:split` or `owner/name:configuration:split`.
    """
    path, _ = part_split(records)
    if path.exists():
        return path.is_dir() or path.name.endswith((".arrow", *_TARS))
    return has_hub_form(records)


def find_tars(records: str) -> list[Path] | None:
    """The tars of a webdataset: a file, those of a folder, or of a hub id; None for others.

    `datasets` itself takes the columns of the first samples for those of all: what only later ones
    have would be lost, or could not be read.

    Raises:
        UserError: the hub, or a split of it, cannot be found.
    """
    path, split = part_split(records)
    if path.is_file():
        return [path] if path.name.endswith(_TARS) else None
    if path.is_dir():
        kind, files = list_pool(path, split) if not is_saved(path) else ("arrow", [])
        return files if kind == "webdataset" else None
    with _explained(records):
        return _fetch_tars(records)


def _fetch_tars(records: str) -> list[Path] | None:
    from datasets import DownloadManager, load_dataset_builder

    name, part, split = part_hub_id(records)
    builder = load_dataset_builder(name, part)
    if builder.name != "webdataset":
        return None
    files = dict(builder.config.data_files or {})
    if (split or "train") not in files:
        before = f"{name}:{part}" if part else name
        found = ", ".join(f"{before}:{split}" for split in files)
        raise UserError(f"data.records: {name}: no split {split or 'train'!r}; found {found}")
    fetched = DownloadManager(dataset_name=name).download(list(files[split or "train"]))
    return [Path(file) for file in fetched]


@contextmanager
def _explained(records: str) -> Iterator[None]:
    """What `datasets` raises, as one line that says what to look at."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        yield
    except UserError:
        raise
    except (DatasetGenerationError, DatasetNotFoundError, OSError, *_DAMAGE) as error:
        wrong = f"data.records: {records!r} is neither a file nor a dataset that can be read"
        hint = "check the path or the hub id, the network and HF_TOKEN"
        if listed := _CONFIGURATIONS.search(str(error)):
            raise UserError(_describe_parts(part_hub_id(records)[0], listed[1])) from error
        if part_split(records)[0].exists():
            hint = "name one file of it, or mend that"
        raise UserError(f"{wrong}: {_explain(error)}; {hint}") from error


def _describe_parts(name: str, listed: str) -> str:
    return (
        f"data.records: {name} has several configurations; name one with its split, as "
        f"{name}:CONFIGURATION:train, or fetch it (`hf download --repo-type dataset {name} "
        f"--local-dir FOLDER`) and name that folder: configurations are its sources; found {listed}"
    )


def open_dataset(records: str) -> Dataset:
    """The dataset; the split behind the colon, of a hub id without one "train".

    Raises:
        UserError: it cannot be read.
    """
    from datasets import DatasetDict

    with _explained(records):
        path, split = part_split(records)
        dataset = _load_local(path, split) if path.exists() else _load_hub(records)
    if isinstance(dataset, DatasetDict):
        if len(dataset) == 1 and split is None:
            return next(iter(dataset.values()))
        if split in dataset:
            return dataset[split]
        splits = ", ".join(f"{path}:{name}" for name in dataset)
        raise UserError(f"data.records: {records} holds several splits; name one: {splits}")
    if path.is_dir() and is_saved(path) and split not in (None, str(dataset.split)):
        raise UserError(
            f"data.records: {path}: no split {split!r}; it is one dataset as `datasets` saved it: "
            "name the folder alone"
        )
    return dataset


def list_files(dataset: Dataset) -> list[tuple[str, int, int]]:
    """Name, size and modification time of the Arrow files behind a dataset."""
    stats = [(name, Path(name).stat()) for name in (f["filename"] for f in dataset.cache_files)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def count_rows(files: Sequence[Path]) -> list[int]:
    """How many rows each parquet or Arrow file has."""
    return [
        _count_arrow(file) if file.suffix == ".arrow" else pq.read_metadata(file).num_rows
        for file in files
    ]


def _count_arrow(path: Path) -> int:
    with pa.memory_map(str(path)) as file:
        try:
            reader = pa.ipc.open_stream(file)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(file)
        return int(reader.read_all().num_rows)


def read_rows(dataset: Dataset, records: str) -> Iterator[dict[str, Any]]:
    """Every row, its images as {bytes, path}.

    Raises:
        UserError: the files are damaged.
    """
    size = _ROWS_WITH_BYTES if holds_bytes(dataset.features.arrow_schema) else _ROWS
    try:
        for batch in dataset.with_format("arrow").iter(batch_size=size):
            batch.validate(full=True)  # a mapped file is read as it is, damaged or not
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"data.records: {records}: damaged: {first_line(error.__cause__ or error)}"
        ) from error


def take_rows(dataset: Dataset, positions: Sequence[int]) -> tuple[pa.Schema, Iterable[pa.Table]]:
    """The rows at `positions`; with images in them, a few at a time."""
    chosen = dataset.select(positions).with_format("arrow")
    schema = dataset.features.arrow_schema
    if holds_bytes(schema):  # its metadata say which columns are images
        return schema, chosen.iter(batch_size=_ROWS_WITH_BYTES)
    table: pa.Table = chosen[:].replace_schema_metadata(None)
    return table.schema, [table]


def _load_local(folder: Path, split: str | None) -> Any:
    from datasets import load_from_disk

    if folder.is_file():
        return _load("arrow", [folder])
    if is_saved(folder):
        return load_from_disk(str(folder), keep_in_memory=False)
    return _load(*list_pool(folder, split))


def _load(kind: str, files: Sequence[Path]) -> Any:
    """Mapped, whatever HF_DATASETS_IN_MEMORY_MAX_SIZE says: the files behind it stand for it."""
    from datasets import load_dataset

    patterns = [glob.escape(str(file)) for file in files]
    return load_dataset(kind, data_files=patterns, split="train", keep_in_memory=False)


def _explain(error: BaseException) -> str:
    """The first line of it; of files whose columns differ it would say nothing."""
    cause = error.__cause__ or error
    if type(cause).__name__ == "CastError":
        return "its files have different columns, so they are several pools"
    if str(cause).startswith("Couldn't cast"):
        return "a column of its files is of one type here and of another there"
    return first_line(cause)


def _load_hub(records: str) -> Any:
    from datasets import load_dataset

    name, part, split = part_hub_id(records)
    dataset = load_dataset(name, part, split=split or "train", keep_in_memory=False)
    if dataset.info.builder_name == "webdataset":  # without a network, out of its cache
        raise UserError(
            f"data.records: {records}: a webdataset as `datasets` keeps it, which lacks what only "
            "some samples have; read it with a network, or name a folder of its tars"
        )
    return dataset
