"""The index of many images (a pool's, a benchmark's): each file read once for all runs.

A folder and names go in; what is wrong or odd about each image, and the hash of its content, come
out. What was examined before is kept in the cache folder and holds as long as a file's size and
modification time stay the same. Any process may ask: those that ask together wait for the first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from prism_tune.data.convert import cache_root
from prism_tune.data.examination import (
    ExaminedImage,
    FileState,
    Finding,
    can_open,
    examine_image,
    read_state,
)
from prism_tune.data.image_paths import ImageFolders
from prism_tune.data.policy import REASONS
from prism_tune.data.spawned import map_spawned
from prism_tune.run.cached import kept_if_writable
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import locked, write_atomic
from prism_tune.run.progress import UnitProgress
from prism_tune.run.worker_processes import count_cores

logger = logging.getLogger(__name__)

_FEWEST_FOR_PROCESSES = 512  # below, starting them takes longer than the work
_NUM_THREADS = 8  # a `stat` waits for the disk, or the network
_NAMES_PER_TASK = 64
_NAMES_PER_SAVE, _SHARE_PER_SAVE = 20_000, 0.25  # what a kill can lose: the larger of these
_VERSION = 5
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("hash", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("details", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class ImageIndex:
    """What is known of named images.

    Attributes:
        hashes: name -> hash of the file's bytes; images whose file cannot be read are not in it.
        findings: name -> (reason, detail) of everything wrong or odd; the others are not in it.
    """

    hashes: Mapping[str, str]
    findings: Mapping[str, tuple[Finding, ...]]

    @cached_property
    def faults(self) -> dict[str, Finding]:
        """Why an image has no hash."""
        return {name: found[0] for name, found in self.findings.items() if name not in self.hashes}

    @cached_property
    def strips(self) -> frozenset[str]:
        """The images so long or so high that a model's processor may refuse them."""
        return frozenset(
            name
            for name, found in self.findings.items()
            if any(reason == "image_aspect_ratio" for reason, _ in found)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Stands for the content of every image by its name, wherever the folder lies."""
        return fingerprint({**self.hashes, **{name: why for name, (why, _) in self.faults.items()}})


def index_images(folders: ImageFolders, names: Sequence[str], *, num_workers: int) -> ImageIndex:
    """Examine the named images; of those that have not changed no file is opened again.

    Args:
        folders: where they lie.
        names: each once.
        num_workers: 0 works in this process; otherwise one process per core is started where
            there is much to do.
    """
    roots = [str(root.resolve()) for root in folders.roots]
    key = fingerprint([_VERSION, str(folders.base.resolve()), *roots])
    cache = cache_root() / f"images-{key[:16]}.parquet"
    states = _read_states(folders, names)
    known = _know_all(folders, states, cache, num_workers)
    # What is not there is looked for again each time, and costs no reading.
    known |= {name: examine_image(folders, name) for name in names if states[name] is None}
    images = [known[name] for name in names]
    return ImageIndex(
        {image.name: image.hash for image in images if image.hash is not None},
        {image.name: image.findings for image in images if image.findings},
    )


def _know_all(
    folders: ImageFolders, states: Mapping[str, FileState | None], cache: Path, num_workers: int
) -> dict[str, ExaminedImage]:
    """What is kept of the images that are there, after what is outdated was examined.

    Those that waited for another read what it has kept all at once, not one after the other.
    """
    while True:
        version, known = _read_cache(cache)
        outdated = _list_outdated(folders, states, known)
        if not outdated:
            return known
        with locked(Path(f"{cache}.lock")):
            if _read_version(cache) == version:
                return _examine_and_keep(folders, outdated, known, cache, num_workers)


def _examine_and_keep(
    folders: ImageFolders,
    names: Sequence[str],
    known: dict[str, ExaminedImage],
    cache: Path,
    num_workers: int,
) -> dict[str, ExaminedImage]:
    """Add the named images to those known.

    All are written each time, so the more there are, the rarer.
    """
    num_unsaved = 0
    for part in _examine_in_parts(folders, names, num_workers):
        news = {image.name: image for image in part if image != known.get(image.name)}
        known |= news
        num_unsaved += len(news)
        if num_unsaved >= max(_NAMES_PER_SAVE, _SHARE_PER_SAVE * len(known)):
            _write_cache(cache, known)
            num_unsaved = 0
    if num_unsaved:
        _write_cache(cache, known)
    return known


def _read_states(folders: ImageFolders, names: Sequence[str]) -> dict[str, FileState | None]:
    def read_part(part: Sequence[str]) -> list[FileState | None]:
        return [read_state(folders, name) for name in part]

    parts = [names[i : i + _NAMES_PER_TASK] for i in range(0, len(names), _NAMES_PER_TASK)]
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        states = [state for part in threads.map(read_part, parts) for state in part]
    return dict(zip(names, states, strict=True))


def _list_outdated(
    folders: ImageFolders,
    states: Mapping[str, FileState | None],
    known: Mapping[str, ExaminedImage],
) -> list[str]:
    """The names of files that are there and not examined as they are.

    One that could not be opened is outdated once it can be: permissions, a network's hiccup and the
    folders that links may lead to change without its size and time.
    """

    def is_outdated(name: str, state: FileState) -> bool:
        if name not in known or known[name].state != state:
            return True
        return known[name].hash is None and can_open(folders, name)

    return [n for n, state in states.items() if state is not None and is_outdated(n, state)]


def _examine_in_parts(
    folders: ImageFolders, names: Sequence[str], num_workers: int
) -> Iterator[list[ExaminedImage]]:
    """The images in order, in parts."""
    examine = partial(examine_image, folders)
    examined: Iterator[ExaminedImage] = map(examine, names)
    if num_workers != 0:
        limits = {"fewest": _FEWEST_FOR_PROCESSES, "per_task": _NAMES_PER_TASK}
        examined = map_spawned(examine, names, most=count_cores(), **limits)
    with UnitProgress(len(names), "images") as progress:
        while part := [_advance(progress, image) for image in islice(examined, _NAMES_PER_SAVE)]:
            yield part


def _advance(progress: UnitProgress, image: ExaminedImage) -> ExaminedImage:
    progress.advance()
    return image


def _read_version(cache: Path) -> FileState | None:
    """Tells what is kept from what another process has kept since; None where nothing can be read.

    The file is opened: only then does a network's file system look whether there is another.
    """
    try:
        with cache.open("rb") as file:
            return _version_of(file)
    except OSError:
        return None


def _version_of(file: BinaryIO) -> FileState:
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


def _read_cache(cache: Path) -> tuple[FileState | None, dict[str, ExaminedImage]]:
    version = None
    try:
        with cache.open("rb") as file:
            version = _version_of(file)
            table = pq.read_table(file, schema=_SCHEMA)
    except FileNotFoundError:
        return None, {}
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s: damaged (%s); the images are read again", cache, error)
        return version, {}
    return version, _read_rows(table)


def _read_rows(table: pa.Table) -> dict[str, ExaminedImage]:
    # By column: a dictionary a row takes twice as long.
    rows = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names), strict=True)
    return {
        name: ExaminedImage(
            name,
            (num_bytes, mtime_ns),
            digest,
            tuple(found for found in zip(reasons, details, strict=True) if found[0] in REASONS),
        )
        for name, num_bytes, mtime_ns, digest, reasons, details in rows
    }


def _write_cache(path: Path, known: Mapping[str, ExaminedImage]) -> None:
    rows = [
        {
            "name": image.name,
            "bytes": image.state[0],
            "mtime_ns": image.state[1],
            "hash": image.hash,
            "reasons": [reason for reason, _ in image.findings],
            "details": [detail for _, detail in image.findings],
        }
        for image in known.values()
        if image.state is not None
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
    with kept_if_writable(path):
        write_atomic(path, sink.getvalue().to_pybytes())
