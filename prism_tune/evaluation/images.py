"""The images of benchmark questions, as files.

In: references as they stand in `Question.images`: a path relative to the benchmark's image folder,
`parquet:<file>#<row>#<column>` (the hub's schema, struct of bytes and path), or a base64 data URI
(MMBench's TSV). Out: one file for each; embedded images are written out once per content.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from prism_tune.data.images import resolve_image
from prism_tune.errors import UserError
from prism_tune.run_dir import read_json, write_atomic, write_json

_PARQUET = "parquet:"
_DATA_URI = "data:"
_INDEX = "index.json"
_NUM_LISTED = 5


def measure_images(references: Iterable[str], image_dir: Path, where: str) -> dict[str, int]:
    """Check that every image is there, and measure it (the file it is in) in bytes.

    Args:
        references: as they stand in the questions.
        image_dir: what paths are relative to.
        where: the config key of `image_dir`, for the message.

    Raises:
        UserError: listing the missing images.
    """
    ordered = sorted(set(references))
    sizes = {reference: _measure(reference, image_dir) for reference in ordered}
    missing = [reference for reference, size in sizes.items() if size is None]
    if missing:
        listed = ", ".join(missing[:_NUM_LISTED])
        more = f" and {len(missing) - _NUM_LISTED} more" if len(missing) > _NUM_LISTED else ""
        raise UserError(
            f"{where}: {len(missing)} of {len(ordered)} images are not in {image_dir}: "
            f"{listed}{more}; set it to the folder they are relative to"
        )
    return {reference: size for reference, size in sizes.items() if size is not None}


def extract_images(references: Iterable[str], folder: Path) -> None:
    """Write embedded images as files named by their content, with an index. Main process only."""
    index = {}
    for reference, content in _read_embedded([r for r in references if _is_embedded(r)]):
        path = folder / hashlib.sha256(content).hexdigest()[:32]
        if not path.exists():
            write_atomic(path, content)
        index[hash_reference(reference)] = path.name
    if index:
        write_json(folder / _INDEX, index)


def locate_images(references: Iterable[str], image_dir: Path, folder: Path) -> dict[str, Path]:
    """The file of every image; embedded ones as `extract_images` left them in `folder`.

    Raises:
        UserError: a path that leads out of `image_dir`.
    """
    wanted = list(references)
    index = read_json(folder / _INDEX) if any(map(_is_embedded, wanted)) else {}
    return {
        reference: folder / index[hash_reference(reference)]
        if _is_embedded(reference)
        else resolve_image(image_dir, reference)
        for reference in wanted
    }


def hash_reference(reference: str) -> str:
    """A short name for a reference, which may be a whole image in base64."""
    return hashlib.sha256(reference.encode()).hexdigest()[:32]


def _is_embedded(reference: str) -> bool:
    return reference.startswith((_PARQUET, _DATA_URI))


def _measure(reference: str, image_dir: Path) -> int | None:
    if reference.startswith(_DATA_URI):
        return len(reference)
    if reference.startswith(_PARQUET):
        path = _parse_parquet(reference)[0]
    else:
        path = resolve_image(image_dir, reference)
    return path.stat().st_size if path.is_file() else None


def _read_embedded(references: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    rows: defaultdict[tuple[Path, str], dict[int, str]] = defaultdict(dict)
    for reference in references:
        if reference.startswith(_DATA_URI):
            yield reference, base64.b64decode(reference.partition(",")[2])
        else:
            path, row, column = _parse_parquet(reference)
            rows[path, column][row] = reference
    for (path, column), wanted in rows.items():
        for row, image in enumerate(_iterate_column(path, column)):
            if row in wanted:
                yield wanted[row], _read_bytes(image, wanted[row])


def _iterate_column(path: Path, column: str) -> Iterator[object]:
    """A parquet column's values, a few at a time: a whole one may not fit in memory."""
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64, columns=[column]):
        yield from batch.column(0).to_pylist()


def _read_bytes(image: object, reference: str) -> bytes:
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise UserError(
            f"{reference}: expected an image as bytes (the schema of `datasets`: bytes and path), "
            f"found {type(content).__name__}"
        )
    return content


def _parse_parquet(reference: str) -> tuple[Path, int, str]:
    path, row, column = reference.removeprefix(_PARQUET).rsplit("#", 2)
    return Path(path), int(row), column
