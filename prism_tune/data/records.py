"""The pool: LLaVA-style records in a file of any size, opened memory-mapped.

In: a JSON list, JSON lines or parquet file, or a dataset (`data.records`), and the folder its image
paths are relative to. Out: lazily parsed `Record`s, and subsets in the format the pool came in.

Shape legend: N records of the pool.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prism_tune.config.pool_paths import find_image_dir
from prism_tune.config.sections import DataConfig
from prism_tune.data.adapt import adapt_record, build_reading, find_extras
from prism_tune.data.convert import convert_pool, embedded_folder
from prism_tune.data.files.formats import Format, format_records, take_parquet, write_parquet
from prism_tune.data.image_index import ImageIndex, index_images
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.policy import apply_policy, check_policy
from prism_tune.data.source import take_dataset
from prism_tune.run.folder import read_json, write_atomic
from prism_tune.schema import Record, Skipped

logger = logging.getLogger(__name__)


_said: set[str] = set()


def open_pool(config: DataConfig) -> Pool:
    """Open the configured pool; the first time its file is converted into the cache.

    Raises:
        UserError: the file cannot be read, or holds bad records whose policy is "fail".
        ConfigError: `data.columns` or `data.policy` names something unknown.
    """
    check_policy(config.policy)
    pool = Pool(convert_pool(config), config)
    for level, line in _describe(pool):
        if line not in _said:  # a pool is opened several times in a stage
            _said.add(line)
            logger.log(level, line)
    return pool


def _describe(pool: Pool) -> Iterator[tuple[int, str]]:
    """What is to be known of how its records were read, with the levels of the log."""
    if pool.num_moved:
        yield (
            logging.INFO,
            f"{pool.path}: <image> goes to the front of its question in {pool.num_moved} of "
            f"{len(pool)} records, as in LLaVA (data.image_place=keep leaves it)",
        )
    if pool.unmarked:
        yield (
            logging.INFO,
            f"{pool.path}: {len(pool.unmarked)} of {len(pool)} records have images and no "
            "<image>; it is put before the first question",
        )
    if pool.unread:
        keys = ", ".join(f"`{key}` ({num:,})" for key, num in pool.unread.items())
        yield (
            logging.WARNING,
            f"{pool.path}: keys of turns and answers that nothing reads, with the number of "
            f"records: {keys}",
        )


class Pool:
    """The usable records of a file, in the file's order.

    A record's uid is a hash of its images, its turns, its system line and, among exact duplicates,
    how many came before it. The `id` field cannot serve: ids repeat in the wild (LLaVA-665K has the
    same id on different conversations), and keying on it would silently lose rows.

    Attributes:
        skipped: the records left out because their policy is "skip", with reasons.
        skipped_sources: the source of each of these.
        fingerprint: a hash of every record as it stands in the file and as it is read (ids, images,
            turns and sources); not of the images, see `image_index`.
        unmarked: indices of records whose images had no `<image>`.
        num_moved: records whose `<image>` was moved to the front of its turn.
        unread: keys of turns and answers that are not read, and in how many records.
        duplicates: indices of records that repeat the images and turns of an earlier one.
    """

    def __init__(self, folder: Path, config: DataConfig) -> None:
        self._opened_with = (folder, config)
        described = read_json(folder / "pool.json")
        self.path = Path(config.records)
        self.image_dir = find_image_dir(config)
        roots = tuple(Path(root) for root in config.image_roots)
        self.image_folders = ImageFolders(self.image_dir, roots, embedded_folder())
        self.fingerprint: str = described["fingerprint"]
        self.skipped = tuple(Skipped(**item) for item in described["skipped"])
        apply_policy(config.records, self.skipped, config.policy)
        self.skipped_sources: list[str] = described["skipped_sources"]
        self.duplicates: list[int] = described["duplicates"]
        self.unmarked: list[int] = described["unmarked"]
        self.num_moved: int = described["num_moved"]
        self.unread: dict[str, int] = described["unread"]
        self.format: Format = described["format"]
        self._reading = build_reading(config)
        self._map = pa.memory_map(str(folder / "records.arrow"))
        self._table = pa.ipc.open_file(self._map).read_all()
        self._num_records = int(self._table.num_rows)
        self._columns = {name: self._table.column(name) for name in self._table.column_names}

    def __reduce__(self) -> tuple[type[Pool], tuple[Path, DataConfig]]:
        """Worker processes open the file themselves."""
        return Pool, self._opened_with

    def reopen(self) -> Pool:
        """The same pool, mapped anew: what was read of this one stays behind with it."""
        return Pool(*self._opened_with)

    @property
    def config(self) -> DataConfig:
        """What it was opened with."""
        return self._opened_with[1]

    def __len__(self) -> int:
        return self._num_records

    def __getitem__(self, index: int) -> Record:
        """The record at `index`, parsed now."""
        adapted = adapt_record(self.raw(index), self._reading)
        return Record(
            uid=self._value("uid", index),
            id=self._value("id", index),
            source=self._value("source", index),
            images=tuple(image.name for image in adapted.images),
            turns=self._reading.arrange(adapted),
            system=adapted.system,
        )

    def raw(self, index: int) -> dict[str, Any]:
        """The record as it stands in the file, unknown keys included."""
        value: dict[str, Any] = json.loads(self._value("raw", index))
        return value

    def extras(self, index: int) -> dict[str, Any]:
        """What the record says besides what is read of it, by key."""
        return find_extras(self.raw(index), self._reading.columns)

    @cached_property
    def uids(self) -> list[str]:
        """Every record's uid: unique, and the same whatever the pool's order or neighbours."""
        return self._list("uid")

    @cached_property
    def ids(self) -> list[str]:
        """Every record's own id (may repeat); its position in the file where it has none."""
        return self._list("id")

    @cached_property
    def sources(self) -> list[str]:
        """Every record's source, as `data.source` and `data.source_names` say."""
        return self._list("source")

    @cached_property
    def is_text_only_N(self) -> NDArray[np.bool_]:
        """Which records have no image."""
        num_images_N = pc.list_value_length(self._table.column("images")).to_numpy()
        return np.asarray(num_images_N == 0)

    def images(self, index: int) -> list[str]:
        """The record's image names, without parsing the record."""
        names: list[str] = self._value("images", index)
        return names

    def unique_images(self) -> list[str]:
        """Every image name once, in the order of first use."""
        return [
            str(name)
            for name in pc.unique(pc.list_flatten(self._table.column("images"))).to_pylist()
        ]

    @cached_property
    def image_index(self) -> ImageIndex:
        """Hash and findings of every image; files seen before in any run are not opened again."""
        names, num_workers = self.unique_images(), self._opened_with[1].num_workers
        return index_images(self.image_folders, names, num_workers=num_workers)

    def image_paths(self, index: int) -> list[Path]:
        """The record's image files, certain to lie inside the image folders.

        Raises:
            ImageError: a path that leads elsewhere.
        """
        try:
            return [self.image_folders.resolve(name) for name in self.images(index)]
        except ImageError as error:
            raise ImageError(error.reason, f"{self.describe(index)}: {error}") from error

    def describe(self, index: int) -> str:
        """The record's file, place and id, to begin an error message with."""
        position = self._value("position", index)
        return f"{self.path}: record {position} (id {self._value('id', index)!r})"

    def raw_bytes(self, index: int) -> bytes:
        """The record's own JSON text."""
        data: bytes = self._value("raw", index)
        return data

    def positions(self, indices: Sequence[int]) -> list[int]:
        """Where records stand in the source file, bad records counted."""
        places: list[int] = (
            self._table.column("position").take(pa.array(indices, pa.int64())).to_pylist()
        )
        return places

    def _list(self, column: str) -> list[str]:
        values: list[str] = self._table.column(column).to_pylist()
        return values

    def _value(self, column: str, index: int) -> Any:
        num_records = self._num_records
        if not -num_records <= index < num_records:
            raise IndexError(f"{self.path}: record {index} of {num_records}")
        return self._columns[column][index].as_py()


def write_subset(pool: Pool, indices: Sequence[int], path: Path) -> str:
    """Write some records to a file of the format the pool came in, byte for byte as they were.

    A dataset's rows become a parquet file.

    Args:
        pool: where the records come from.
        indices: which, in the order they are to be written.
        path: the file; replaced atomically.

    Returns:
        The SHA-256 of the file.
    """
    positions = pool.positions(indices)
    if pool.format == "dataset":
        write_parquet(path, *take_dataset(str(pool.path), positions))
    elif pool.format == "parquet":
        write_parquet(path, *take_parquet(pool.path, positions))
    else:
        write_atomic(path, format_records([pool.raw_bytes(n) for n in indices], pool.format))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
