"""What `Question.images` refers to, and the file of each image; nothing is decoded, no torch.

A reference is a path relative to the benchmark's image folder, `parquet:<file>#<row>#<column>` (the
hub's schema, struct of bytes and path), or a base64 data URI (MMBench's TSV). Embedded images are
written out once for all runs, into the cache folder, named by their content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow.parquet as pq

from prism_tune.config.sections import Config
from prism_tune.data.convert import cache_root
from prism_tune.data.image_paths import ImageFolders
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import PARQUET
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import locked, read_object, write_atomic, write_json
from prism_tune.schema import PlacedImage

_DATA_URI = "data:"


def cache_folder() -> Path:
    """Where embedded images are written out."""
    return cache_root() / "benchmark_images"


def find_folders(config: Config, name: str) -> ImageFolders:
    """What a benchmark's paths are relative to: its image folder, else the annotations' own."""
    data = config.evaluation.data[name]
    annotations = Path(data.annotations)
    beside = annotations if annotations.is_dir() else annotations.parent
    base = Path(data.image_dir) if data.image_dir else beside
    roots = tuple(map(Path, config.data.image_roots))
    return ImageFolders(base, roots, setting=f"evaluation.data.{name}.image_dir")


def locate(references: Iterable[str], folders: ImageFolders) -> dict[str, PlacedImage]:
    """Where each image is, there or not.

    Raises:
        UserError: a parquet column that holds something else than images.
    """
    wanted = sorted(set(references))
    folder = cache_folder()
    embedded = extract([r for r in wanted if is_embedded(r)], folder)
    files = {
        reference: PlacedImage(folders.base, reference, roots=folders.roots)
        for reference in wanted
        if not is_embedded(reference)
    }
    return files | {r: PlacedImage(folder, name or "", True) for r, name in embedded.items()}


def is_embedded(reference: str) -> bool:
    """Whether the image lies in a parquet file or in the reference itself."""
    return reference.startswith((PARQUET, _DATA_URI))


def extract(references: Iterable[str], folder: Path) -> dict[str, str | None]:
    """Write embedded images out, named by their content.

    None where there are no bytes, empty where text is there that is no base64.
    """
    names: dict[str, str | None] = {}
    columns: defaultdict[tuple[Path, str], dict[str, int]] = defaultdict(dict)
    for reference in references:
        if reference.startswith(_DATA_URI):
            names[reference] = _keep(_decode_text(reference), folder)
        else:
            file, row, column = reference.removeprefix(PARQUET).rsplit("#", 2)
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
        names: dict[str, str | None] = read_object(known) if known.exists() else {}
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
