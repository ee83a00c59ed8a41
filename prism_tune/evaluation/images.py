"""The images of benchmark questions, as files.

In: references as they stand in `Question.images`: a path relative to the benchmark's image folder,
`parquet:<file>#<row>#<column>` (the hub's schema, struct of bytes and path), or a base64 data URI
(MMBench's TSV). Out: one file for each; embedded images are written out once per content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from prism_tune.data.images import Finding, ImageError, resolve_image
from prism_tune.errors import UserError
from prism_tune.run.folder import read_json, write_atomic, write_json

_PARQUET = "parquet:"
_DATA_URI = "data:"
_INDEX = "index.json"


def measure_images(
    references: Iterable[str], image_dir: Path
) -> tuple[dict[str, int], dict[str, Finding]]:
    """The size in bytes of every image (of the file it is in), and what is wrong with the others.

    Args:
        references: as they stand in the questions.
        image_dir: what paths are relative to.
    """
    sizes, faults = {}, {}
    for reference in sorted(set(references)):
        try:
            sizes[reference] = _measure(reference, image_dir)
        except ImageError as error:
            faults[reference] = (error.reason, str(error))
    return sizes, faults


def extract_images(references: Iterable[str], folder: Path) -> dict[str, Finding]:
    """Write embedded images as files named by their content, with an index. Main process only.

    Returns:
        What is wrong with those that hold no image at all.
    """
    index: dict[str, str] = {}
    faults: dict[str, Finding] = {}
    for reference, content in _read_embedded([r for r in references if is_embedded(r)]):
        if content is None:
            faults[reference] = ("image_missing", f"{name_image(reference)}: no image bytes in it")
            continue
        path = folder / hashlib.sha256(content).hexdigest()[:32]
        if not path.exists():
            write_atomic(path, content)
        index[hash_reference(reference)] = path.name
    if index:
        write_json(folder / _INDEX, index)
    return faults


def locate_images(references: Iterable[str], image_dir: Path, folder: Path) -> dict[str, Path]:
    """The file of every image; embedded ones as `extract_images` left them in `folder`.

    Raises:
        UserError: a path that leads out of `image_dir`.
    """
    wanted = list(references)
    index = read_json(folder / _INDEX) if any(map(is_embedded, wanted)) else {}
    return {
        reference: folder / index[hash_reference(reference)]
        if is_embedded(reference)
        else resolve_image(image_dir, reference)
        for reference in wanted
    }


def hash_reference(reference: str) -> str:
    """A short name for a reference, which may be a whole image in base64."""
    return hashlib.sha256(reference.encode()).hexdigest()[:32]


def is_embedded(reference: str) -> bool:
    """Whether the image is inside a parquet or TSV file."""
    return reference.startswith((_PARQUET, _DATA_URI))


def name_image(reference: str) -> str:
    """A reference for messages: a base64 image is cut short."""
    return f"{reference[:40]}..." if reference.startswith(_DATA_URI) else reference


def _measure(reference: str, image_dir: Path) -> int:
    if reference.startswith(_DATA_URI):
        return len(reference)
    if reference.startswith(_PARQUET):
        path = _parse_parquet(reference)[0]
    else:
        path = resolve_image(image_dir, reference)
    if not path.is_file():
        raise ImageError("image_missing", f"{path}: no such image file")
    return path.stat().st_size


def _read_embedded(references: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    rows: defaultdict[tuple[Path, str], dict[int, str]] = defaultdict(dict)
    for reference in references:
        if reference.startswith(_DATA_URI):
            yield reference, _decode_base64(reference.partition(",")[2])
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


def _decode_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text) or None
    except binascii.Error:
        return None


def _read_bytes(image: object, reference: str) -> bytes | None:
    content = image.get("bytes") if isinstance(image, dict) else image
    if content is not None and not isinstance(content, bytes):
        raise UserError(
            f"{reference}: expected an image as bytes (the schema of `datasets`: bytes and path), "
            f"found {type(content).__name__}"
        )
    return content


def _parse_parquet(reference: str) -> tuple[Path, int, str]:
    path, row, column = reference.removeprefix(_PARQUET).rsplit("#", 2)
    return Path(path), int(row), column
