"""The images of benchmark questions: files, what is in them, and which cannot be shown.

In: references as they stand in `Question.images`: a path relative to the benchmark's image folder,
`parquet:<file>#<row>#<column>` (the hub's schema, struct of bytes and path), or a base64 data URI
(MMBench's TSV). Out: for each its file and the hash of its content, or what is wrong with it.
Embedded images are written out once for all runs, into the cache folder, named by their content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow.parquet as pq
from PIL import Image

from prism_tune.data.convert import cache_root, locked
from prism_tune.data.encoding.encoder import require_accepted
from prism_tune.data.examination import Finding
from prism_tune.data.image_index import index_images
from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import read_size
from prism_tune.data.policy import REASONS, USABLE
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import read_json, write_atomic, write_json

IMAGE_FAULTS = tuple(
    reason
    for reason in REASONS
    if reason.startswith("image_") and reason != "image_count" and reason not in USABLE
)
"""What makes a question's image unusable; what is merely odd is asked, as the protocol has it."""

_PARQUET = "parquet:"
_DATA_URI = "data:"


@dataclass(frozen=True)
class ImageFiles:
    """Images by their reference.

    Attributes:
        paths: the file of each image that can be shown.
        hashes: of that file's content.
        faults: the others, and what is wrong with them.
        strips: of those that can be shown, the ones so long or high that a model may refuse them.
    """

    paths: Mapping[str, Path]
    hashes: Mapping[str, str]
    faults: Mapping[str, Finding]
    strips: frozenset[str] = frozenset()


def find_missing(references: Iterable[str], image_dir: Path) -> dict[str, Finding]:
    """The files that are not there or lie outside the folder; none is opened."""
    faults = {}
    for reference in sorted({r for r in references if not _is_embedded(r)}):
        try:
            path = ImageFolders(image_dir).resolve(reference)
            if not path.is_file():
                raise ImageError("image_missing", f"{path}: no such image file")
        except ImageError as error:
            faults[reference] = (error.reason, str(error))
    return faults


def find_images(references: Iterable[str], image_dir: Path, *, num_workers: int) -> ImageFiles:
    """Look at every image; each file is decoded and hashed once for all runs.

    Args:
        references: as they stand in the questions.
        image_dir: what paths are relative to.
        num_workers: 0 works in this process.

    Raises:
        UserError: a parquet column that holds something else than images.
    """
    wanted = sorted(set(references))
    folder = cache_root() / "benchmark_images"
    embedded = _extract([r for r in wanted if _is_embedded(r)], folder)
    unusable = {
        reference: _describe_unusable(reference, name)
        for reference, name in embedded.items()
        if not name
    }
    names = {reference: name for reference, name in embedded.items() if name}
    inside = _look(folder, names, num_workers)
    files = _look(image_dir, {r: r for r in wanted if not _is_embedded(r)}, num_workers)
    return ImageFiles(
        {**inside.paths, **files.paths},
        {**inside.hashes, **files.hashes},
        {**unusable, **inside.faults, **files.faults},
        inside.strips | files.strips,
    )


def leave_out_refused(images: ImageFiles, processor: Any) -> ImageFiles:
    """The images that a model's processor takes; the others are at fault."""
    faults = dict(images.faults)
    for reference in sorted(images.strips):
        path = images.paths[reference]
        try:
            require_accepted(Image.new("RGB", read_size(path)), processor, str(path))
        except ImageError as error:
            faults[reference] = (error.reason, str(error))
    return ImageFiles(
        {name: path for name, path in images.paths.items() if name not in faults},
        {name: found for name, found in images.hashes.items() if name not in faults},
        faults,
    )


def _describe_unusable(reference: str, name: str | None) -> Finding:
    if name is None:
        return "image_missing", f"{reference[:80]}: no image bytes in it"
    return "image_unreadable", f"{reference[:80]}: expected an image as base64"


def _look(folder: Path, names: Mapping[str, str], num_workers: int) -> ImageFiles:
    """`names` maps references to files in `folder`."""
    folders = ImageFolders(folder)
    index = index_images(folders, sorted(set(names.values())), num_workers=num_workers)
    unusable = {
        name: next((f for f in findings if f[0] in IMAGE_FAULTS), None)
        for name, findings in index.findings.items()
    }
    faults = {r: fault for r, name in names.items() if (fault := unusable.get(name))}
    sound = {reference: name for reference, name in names.items() if reference not in faults}
    return ImageFiles(
        {reference: folders.resolve(name) for reference, name in sound.items()},
        {reference: index.hashes[name] for reference, name in sound.items()},
        faults,
        frozenset(r for r, name in sound.items() if name in index.strips),
    )


def _is_embedded(reference: str) -> bool:
    return reference.startswith((_PARQUET, _DATA_URI))


def _extract(references: Iterable[str], folder: Path) -> dict[str, str | None]:
    """Write embedded images out, named by their content.

    None where there are no bytes, empty where text is there that is no base64.
    """
    names: dict[str, str | None] = {}
    columns: defaultdict[tuple[Path, str], dict[str, int]] = defaultdict(dict)
    for reference in references:
        if reference.startswith(_DATA_URI):
            names[reference] = _keep(_decode_text(reference), folder)
        else:
            file, row, column = reference.removeprefix(_PARQUET).rsplit("#", 2)
            columns[Path(file), column][reference] = int(row)
    for (path, column), rows in columns.items():
        found = _extract_rows(path, column, set(rows.values()), folder)
        names |= {reference: found[str(row)] for reference, row in rows.items()}
    return names


def _extract_rows(path: Path, column: str, rows: set[int], folder: Path) -> dict[str, str | None]:
    """The file of each row's image, written out unless it was, from this very parquet file."""
    state = path.stat()
    key = fingerprint([str(path.resolve()), state.st_size, state.st_mtime_ns, column])
    known = folder / f"{key[:32]}.json"
    with locked(Path(f"{known}.lock")):
        names: dict[str, str | None] = read_json(known) if known.exists() else {}
        kept = {row for row, name in names.items() if name is None or (folder / name).exists()}
        due = {row for row in rows if str(row) not in kept}
        if due:
            for row, image in _iterate_column(path, column, until=max(due)):
                if row in due:
                    content = _read_bytes(image, f"{path}, row {row}, column {column}")
                    names[str(row)] = _keep(content, folder)
            write_json(known, names)
    return names


def _keep(content: bytes | None, folder: Path) -> str | None:
    if not content:
        return None if content is None else ""
    name = hashlib.sha256(content).hexdigest()[:32]
    if not (folder / name).exists():
        write_atomic(folder / name, content)
    return name


def _iterate_column(path: Path, column: str, *, until: int) -> Iterator[tuple[int, object]]:
    """A parquet column's values by row, a few at a time: a whole one may not fit in memory."""
    row = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64, columns=[column]):
        yield from enumerate(batch.column(0).to_pylist(), row)
        row += batch.num_rows
        if row > until:
            return


def _decode_text(text: str) -> bytes | None:
    """The bytes of a data URI, or of bare base64; None of an empty one, no bytes where broken."""
    head, _, payload = text.partition(",") if text.startswith(_DATA_URI) else ("", "", text)
    if not payload.strip():
        return None
    if head and not head.endswith(";base64"):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _read_bytes(image: object, where: str) -> bytes | None:
    if isinstance(image, list):  # the frames of a video: the one in the middle, as LLaVA shows it
        image = image[len(image) // 2] if image else None
    content = image.get("bytes") if isinstance(image, dict) else image
    if isinstance(content, str):
        return _decode_text(content)
    if content is not None and not isinstance(content, bytes):
        raise UserError(
            f"{where}: expected an image as bytes (the schema of `datasets`: bytes and path) or "
            f"base64, found {type(content).__name__}"
        )
    return content or None
