"""Which files of a folder are its pool: all of one kind, and of one split.

A folder, and perhaps a split, go in; the kind and the files come out, in the order of their names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from prism_tune.errors import UserError

Kind = Literal["parquet", "arrow", "webdataset", "jsonl", "json"]

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "jsonl": tuple(f".jsonl{packed}" for packed in ("", ".gz", ".bz2", ".xz", ".zst")),
    "json": tuple(f".json{packed}" for packed in ("", ".gz", ".bz2", ".xz", ".zst")),
}
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev)(?=[-_.]|$)")
_SAVED = ("state.json", "dataset_dict.json")
"""In a folder that `save_to_disk` wrote."""


def part_split(records: str) -> tuple[Path, str | None]:
    """The path, and the split behind the colon where it is a folder that is there."""
    folder, _, split = records.rpartition(":")
    if folder and not Path(records).exists() and Path(folder).is_dir():
        return Path(folder), split
    return Path(records), None


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved it."""
    return any((folder / name).exists() for name in _SAVED)


def list_pool(folder: Path, split: str | None) -> tuple[Kind, list[Path]]:
    """The files of a folder that hold records; JSON files beside others are no records.

    Raises:
        UserError: none, of several kinds, or of several splits.
    """
    of_kind: dict[Kind, list[Path]] = {kind: [] for kind in _SUFFIXES}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        for kind, suffixes in _SUFFIXES.items():
            if path.name.endswith(suffixes) and not hidden and path.is_file():
                of_kind[kind].append(path)
    found = {kind: files for kind, files in of_kind.items() if files}
    if len(found) > 1:
        found.pop("json", None)
    if not found:
        raise UserError(
            f"data.records: {folder}: a folder without files of JSON, JSON lines, parquet, Arrow "
            "or tar"
        )
    if len(found) > 1:
        kinds = ", ".join(f"{len(files)} of {kind}" for kind, files in found.items())
        raise UserError(
            f"data.records: {folder} holds files of several kinds ({kinds}); name a file, or a "
            "folder of one kind"
        )
    (kind, files), *_ = found.items()
    return kind, _choose_split(folder, files, split)


def _choose_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_name_split(path.relative_to(folder)), []).append(path)
    named = ", ".join(f"{folder}:{name}" for name in splits if name)
    if split is not None:
        if split not in splits:
            raise UserError(f"data.records: {folder}: no split {split!r}; found {named or 'none'}")
        return splits[split]
    if len(splits) > 1 and "," in named:
        raise UserError(f"data.records: {folder} holds several splits; name one: {named}")
    return files


def _name_split(path: Path) -> str:
    """That its own name begins with, or one of its folders is called; "" where there is none."""
    found = _SPLIT.match(path.name)
    if found:
        return found[1]
    return next((part for part in path.parts[:-1] if _SPLIT.fullmatch(part)), "")
