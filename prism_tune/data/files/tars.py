"""Webdataset tars, read as they stand: a row a sample, with every file that it has.

Tars go in; rows of `__key__` and `__members__` (`path` and `bytes` of each file) come out, with
the memory of one sample, and chosen ones of them as tables. What the files are: `layouts/samples`.
No name in a tar is ever a path here.
"""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from prism_tune.data.files.formats import DAMAGED, open_unpacked
from prism_tune.errors import UserError, first_line

logger = logging.getLogger(__name__)

LARGEST_SAMPLE_BYTES = 1 << 30
_ROWS = 32
_BLOCK = 512
_CHUNK = 1 << 20
_SPLIT_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""As webdataset does: the sample's key ends at the first dot of the file's own name."""

_SCHEMA = pa.schema(
    [
        ("__key__", pa.string()),
        ("__members__", pa.list_(pa.struct([("path", pa.string()), ("bytes", pa.large_binary())]))),
    ]
)

Row = dict[str, Any]


def read_samples(tars: Sequence[Path]) -> Iterator[Row]:
    """Every sample of the tars, in their order.

    Raises:
        UserError: a tar is damaged, cut short, or packed so that samples are not told apart.
    """
    for path in tars:
        yield from _read_tar(path)


def take_samples(
    tars: Sequence[Path], positions: Sequence[int]
) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """The samples at `positions`, a few at a time."""
    return _SCHEMA, _make_tables(_pick(tars, positions))


def split_name(name: str) -> tuple[str, str] | None:
    """A file's sample and what it is called in it; None where it belongs to none."""
    found = _SPLIT_NAME.fullmatch(name)
    return (found[1], found[2]) if found else None


def _pick(tars: Sequence[Path], positions: Sequence[int]) -> Iterator[Row]:
    wanted = set(positions)
    rows = ((n, row) for n, row in enumerate(read_samples(tars)) if n in wanted)
    chosen = islice(rows, len(wanted))
    if all(first < second for first, second in pairwise(positions)):
        return (row for _, row in chosen)
    found = dict(chosen)
    return (found[position] for position in positions)


def _make_tables(rows: Iterator[Row]) -> Iterator[pa.Table]:
    while batch := list(islice(rows, _ROWS)):
        yield pa.Table.from_pylist(batch, schema=_SCHEMA)


def _read_tar(path: Path) -> Iterator[Row]:
    done: set[str] = set()
    key: str | None = None
    members: dict[str, bytes] = {}
    try:
        for own, name, content in _read_members(path):
            if own != key:
                if key is not None:
                    yield _make_row(key, members)
                    done.add(key)
                if own in done:
                    raise UserError(
                        f"{path}: the files of sample {own!r} do not stand together; pack them in "
                        "order (tar --sort=name)"
                    )
                key, members = own, {}
            if name in members:
                raise UserError(f"{path}: sample {own!r} has two files {name}")
            members[name] = content
    except (tarfile.TarError, *DAMAGED) as error:
        where = "not a tar file, or a damaged one"
        if key is not None:
            where = f"damaged or cut short in or behind sample {key!r}"
        raise UserError(f"{path}: {where}: {first_line(error)}") from error
    if key is not None:
        yield _make_row(key, members)


def _make_row(key: str, members: Mapping[str, bytes]) -> Row:
    files = [{"path": name, "bytes": content} for name, content in members.items()]
    return {"__key__": key, "__members__": files}


def _read_members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Sample, name and content of every file."""
    key, num_bytes = "", 0
    with (
        open_unpacked(path) as file,
        tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive,
    ):
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            name = info.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
            if info.isdir() or _is_hidden(name):
                continue
            parted = split_name(name)
            if parted is None:
                _say_unread(path, name)
                continue
            if not info.isfile():
                raise UserError(f"{path}: {name} is a link or no file; expected its content")
            num_bytes = info.size + (num_bytes if parted[0] == key else 0)
            key = parted[0]
            if num_bytes > LARGEST_SAMPLE_BYTES:
                raise UserError(
                    f"{path}: sample {key!r} has more than {LARGEST_SAMPLE_BYTES:,} bytes, the "
                    "most that one may have; what stands before the first dot of a file's name "
                    "tells its sample"
                )
            content = archive.extractfile(info)
            yield key, name, content.read() if content else b""
        _check_end(path, archive)


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
    """Refuse what stands behind the end's mark, where nobody would read it."""
    while archive.fileobj and (rest := archive.fileobj.read(_CHUNK)):
        if rest.strip(b"\0"):
            raise UserError(
                f"{path}: further data behind the archive's end, as of tars that were joined; "
                "give them as files of a folder"
            )


class _Header(tarfile.TarInfo):
    """Damage is an error: `tarfile` takes it, and a file's early end, for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == _BLOCK and not any(buf):
                raise  # this is the end's mark
            raise tarfile.ReadError(str(error) if buf else "the end's mark is missing") from error


def _is_hidden(name: str) -> bool:
    """As in folders: what a Mac or an editor put there."""
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part.startswith((".", "__MACOSX")) for part in parts)


@cache
def _say_unread(path: Path, name: str) -> None:
    logger.warning("%s: %s belongs to no sample; it is not read", path, name)
