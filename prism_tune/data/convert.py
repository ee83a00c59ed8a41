"""Converting a pool's source file, once, to a memory-mapped Arrow file in the cache.

In: the records file and how it is read. Out: a folder with `records.arrow` (fixed schema) and
`pool.json` (format, content fingerprint, records that cannot be used, exact duplicates, and what
was done about `<image>`); images that records hold themselves, as files.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from prism_tune.config.sections import DataConfig
from prism_tune.data.adapt import (
    Adapted,
    Reading,
    adapt_record,
    build_reading,
    guess_source,
    name_source,
    read_id,
    read_label,
)
from prism_tune.data.embedded_images import EmbeddedImages
from prism_tune.data.layouts.image_values import EMBEDDED
from prism_tune.data.policy import BadRecordError
from prism_tune.data.source import Source, open_source
from prism_tune.errors import UserError
from prism_tune.run.cache_home import cache_home
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import locked, read_json, remove_left_over, write_json
from prism_tune.schema import Skipped

logger = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("images", pa.list_(pa.string())),
        ("num_turns", pa.int32()),
        ("position", pa.int64()),
        ("raw", pa.large_binary()),
    ]
)
"""`position` is the record's place in the source file; `raw` its own JSON text."""

_VERSION = 12
_DESCRIBED: dict[str, type] = {
    **{"format": str, "fingerprint": str, "num_moved": int, "unread": dict},
    **dict.fromkeys(("skipped", "skipped_sources", "duplicates", "unmarked"), list),
}
"""What pool.json has to say, and its kinds."""
_BATCH_RECORDS = 10_000
_NUM_LOOKED_FOR = 64


def convert_pool(config: DataConfig) -> Path:
    """The cache folder of the pool's converted records, made first where there is none.

    Processes that start together wait for the first one. The folder appears whole or not at all.

    Raises:
        UserError: the file cannot be read.
    """
    reading = build_reading(config)
    embedded = EmbeddedImages(embedded_folder())
    source = open_source(config.records, reading, embedded)
    dirs = (reading.image_dirs, reading.roots)
    ways = (config.columns, config.image_place, config.system)
    folder = cache_root() / fingerprint(
        [_VERSION, source.state, *ways, *dirs, config.source, config.source_names]
    )
    if _is_whole(folder, embedded):
        return folder
    with locked(Path(f"{folder}.lock")):
        if folder.exists() and not _is_whole(folder, embedded):
            logger.warning(
                "%s: damaged, or images that its records held are gone; the pool is converted "
                "again",
                folder,
            )
            shutil.rmtree(folder)
        if not folder.exists():
            _convert(source, _Builder(reading, config, embedded), folder)
            if embedded.num_written:
                logger.info(
                    "pool: %d images that records hold themselves written to %s (%.1f MB)",
                    embedded.num_written,
                    embedded_folder(),
                    embedded.num_bytes / 1e6,
                )
    return folder


def _is_whole(folder: Path, embedded: EmbeddedImages) -> bool:
    """Whether a pool that was converted before is still there as it was written.

    Raises:
        UserError: it is somebody else's, and may not be read.
    """
    try:
        described = read_json(folder / "pool.json")
        with pa.memory_map(str(folder / "records.arrow")) as file:
            images = pa.ipc.open_file(file).read_all().column("images")
            has_images = all(map(embedded.holds, _pick_embedded(images)))
    except PermissionError as error:
        raise UserError(
            f"{folder}: the converted pool may not be read ({error.strerror}): let its owner "
            "`chmod -R a+rX` it, or name a cache of your own with PRISM_TUNE_POOL_CACHE"
        ) from error
    except (UserError, OSError, pa.ArrowException):
        return False
    kinds = _DESCRIBED.items()
    is_described = isinstance(described, dict) and all(
        isinstance(described.get(key), kind) for key, kind in kinds
    )
    return is_described and has_images


def _pick_embedded(images: pa.ChunkedArray) -> list[str]:
    """Some of the images that records hold themselves, from all over the pool.

    Each of them is looked for whenever a pool is opened: a folder that was removed, or tidied up,
    lacks some of any few.
    """
    names = pc.list_flatten(images)
    own = names.filter(pc.starts_with(names, EMBEDDED))
    places = range(0, len(own), -(-len(own) // _NUM_LOOKED_FOR) or 1)
    return [own[place].as_py() for place in places]


def cache_root() -> Path:
    """Where converted pools, and what is known of their images, are kept for every run."""
    pools = os.environ.get("PRISM_TUNE_POOL_CACHE")
    return Path(pools) if pools else cache_home() / "pools"


def embedded_folder() -> Path:
    """Where images that records hold themselves are written, for every pool."""
    return cache_root() / "embedded"


def _convert(source: Source, builder: _Builder, folder: Path) -> None:
    logger.info("pool: converting %s (once)", source.name)
    remove_left_over(folder, ".")
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    made = temporary / "pool"  # with the permissions that a folder of the user's has
    try:
        made.mkdir()
        arrow = str(made / "records.arrow")
        with pa.OSFile(arrow, "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            for position, (folder_name, raw, value) in enumerate(source.read()):
                builder.add(position, raw, value, folder_name)
                if builder.num_waiting == _BATCH_RECORDS:
                    writer.write_batch(builder.take_batch())
            writer.write_batch(builder.take_batch())
        write_json(made / "pool.json", {"format": source.format, **builder.describe()})
        made.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Builder:
    """Turns raw records into Arrow batches, and keeps account of the bad ones."""

    def __init__(self, reading: Reading, config: DataConfig, embedded: EmbeddedImages) -> None:
        self._reading = reading
        self._config = config
        self._embedded = embedded
        self._rows: list[tuple[Any, ...]] = []
        self._skipped: list[Skipped] = []
        self._skipped_sources: list[str] = []
        self._num_seen: dict[bytes, int] = {}
        self._num_rows = 0
        self._duplicates: list[int] = []
        self._unmarked: list[int] = []
        self._num_moved = 0
        self._unread: Counter[str] = Counter()
        self._content = hashlib.blake2b(digest_size=16)

    @property
    def num_waiting(self) -> int:
        return len(self._rows)

    def add(self, position: int, raw: bytes, value: Any, folder: str) -> None:
        try:
            adapted = adapt_record(value, self._reading)
        except BadRecordError as error:
            name = read_id(value, self._reading.columns)
            uid = hashlib.blake2b(raw, digest_size=16).hexdigest()
            detail = f"record {position} (id {name!r}): {error.detail}"
            self._skipped.append(Skipped(uid, name, error.reason, detail))
            self._skipped_sources.append(guess_source(value, self._config, self._reading, folder))
            self._note_content(raw, error.reason)
            return
        source = name_source(adapted, self._config, self._reading, folder)
        if adapted.num_placed:
            self._unmarked.append(self._num_rows)
        self._unread.update(adapted.unread)
        uid, name = self._name_uid(adapted), adapted.id or str(position)
        # As it stands in the file, for that is what a subset holds, and as it is read.
        self._note_content(raw, uid, name, source)
        self._note_moved(adapted)
        for image in adapted.images:
            self._embedded.keep(image)
        images = [image.name for image in adapted.images]
        self._rows.append((uid, name, source, images, len(adapted.turns), position, raw))

    def take_batch(self) -> pa.RecordBatch:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(SCHEMA)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
        self._rows = []
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)

    def describe(self) -> dict[str, Any]:
        return {
            "fingerprint": self._content.hexdigest(),
            "skipped": [asdict(item) for item in self._skipped],
            "skipped_sources": self._skipped_sources,
            "duplicates": self._duplicates,
            "unmarked": self._unmarked,
            "num_moved": self._num_moved,
            "unread": {read_label(key): num for key, num in self._unread.most_common()},
        }

    def _note_content(self, raw: bytes, *read: str) -> None:
        content = [len(raw).to_bytes(8, "little"), raw]
        for text in read:
            encoded = text.encode()
            content += (len(encoded).to_bytes(8, "little"), encoded)
        self._content.update(b"".join(content))

    def _note_moved(self, adapted: Adapted) -> None:
        """The uid is of the record as it is; the content also of where its image was moved to."""
        turns = self._reading.arrange(adapted)
        if turns is not adapted.turns:
            self._num_moved += 1
            pairs = zip(turns, adapted.turns, strict=True)
            self._note_content(b"", *[moved.text for moved, own in pairs if moved is not own])

    def _name_uid(self, adapted: Adapted) -> str:
        turns = [(turn.role, turn.text) for turn in adapted.turns]
        parts: list[Any] = [[image.name for image in adapted.images], turns]
        if adapted.system or adapted.unlearnt:
            parts.append({"system": adapted.system, "unlearnt": adapted.unlearnt})
        content = orjson.dumps(parts)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        occurrence = self._num_seen.get(digest, 0)
        self._num_seen[digest] = occurrence + 1
        if occurrence:
            self._duplicates.append(self._num_rows)
        self._num_rows += 1
        suffix = occurrence.to_bytes(8, "little")
        return hashlib.blake2b(digest + suffix, digest_size=16).hexdigest()
