"""Content hashes of a pool's images, each file read once.

The pool goes in; image name -> hash comes out, and which images are missing. Hashes are kept
beside the features and used again while a file's size and modification time stay the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prism_tune.config.sections import Config
from prism_tune.data.images import ImageError, image_hash, resolve_image
from prism_tune.data.records import Pool
from prism_tune.processes import gather, is_main, rank, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import write_atomic

_NUM_THREADS = 8  # hashing waits for the disk and releases the interpreter lock
_NAMES_PER_TASK = 256
_COLUMNS = ("name", "size", "mtime_ns", "hash")

Row = tuple[str, int, int, str]
Fault = tuple[str, str, str]


@dataclass(frozen=True)
class ImageHashes:
    """Hash of every usable image by name; for the others (reason, detail)."""

    hashes: dict[str, str]
    faults: dict[str, tuple[str, str]]


def hash_images(pool: Pool, config: Config) -> ImageHashes:
    """Hash every image the pool names; every launched process reads its share.

    Args:
        pool: the records.
        config: output_dir, for the file of earlier hashes; rewritten by the main process.
    """
    name = fingerprint(str(pool.image_dir.resolve()))[:16]
    cache = Path(config.output_dir) / "evidence" / f"images-{name}.parquet"
    names = pool.unique_images()
    known = _read_cache(cache)
    share = names[rank() :: world_size()]

    def hash_part(part: list[str]) -> list[Row | Fault]:
        return [_hash(pool.image_dir, name, known.get(name)) for name in part]

    parts = [share[i : i + _NAMES_PER_TASK] for i in range(0, len(share), _NAMES_PER_TASK)]
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        found = [item for part in threads.map(hash_part, parts) for item in part]
    rows: list[Row] = []
    faults: dict[str, tuple[str, str]] = {}
    for of_one_process in gather(found):
        for item in of_one_process:
            if isinstance(item[1], int):
                rows.append(item)
            else:
                faults[item[0]] = (item[1], item[2])
    if is_main() and set(rows) != set(known.values()):
        _write_cache(cache, rows)
    return ImageHashes({row[0]: row[3] for row in rows}, faults)


def _hash(image_dir: Path, name: str, known: Row | None) -> Row | Fault:
    """A row of the cache, or (name, reason, detail) for an image that cannot be read."""
    try:
        state = os.stat(os.path.join(image_dir, name))
        if known is not None and known[1:3] == (state.st_size, state.st_mtime_ns):
            return known
        path = resolve_image(image_dir, name)
        return (name, state.st_size, state.st_mtime_ns, image_hash(path))
    except ImageError as error:
        return (name, error.reason, str(error))
    except OSError as error:
        return (name, "image_missing", f"{image_dir / name}: {error.strerror}")


def _read_cache(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    columns = pq.read_table(path).to_pydict()
    rows: Iterable[Row] = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return {row[0]: row for row in rows}


def _write_cache(path: Path, rows: list[Row]) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(zip(_COLUMNS, map(list, columns), strict=True))), sink)
    write_atomic(path, sink.getvalue().to_pybytes())
