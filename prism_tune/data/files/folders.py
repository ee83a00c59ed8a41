"""Which files of a folder are its pool: all of one kind, and of one split.

A folder, and perhaps a split, go in; the kind and the files come out, in the order of their names.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

from prism_tune.data.files.formats import detect_format, read_json_file
from prism_tune.errors import UserError

logger = logging.getLogger(__name__)

Kind = Literal["parquet", "arrow", "webdataset", "jsonl", "json"]

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "jsonl": tuple(f".jsonl{packed}" for packed in ("", ".gz", ".bz2", ".xz", ".zst")),
    "json": tuple(f".json{packed}" for packed in ("", ".gz", ".bz2", ".xz", ".zst")),
}
_SPLIT = re.compile(
    r"(?<![a-z])(training|train|testing|test|evaluation|eval|validation|valid|val|dev)(?![a-z])",
    re.IGNORECASE,
)
"""A word of a name, as `datasets` tells splits."""
_NUMBER = re.compile(r"\d+")
_SAVED = ("state.json", "dataset_dict.json")
"""In a folder that `save_to_disk` wrote."""

_INFO = "dataset_info.json"
"""What LLaMA-Factory and `datasets` keep beside files of records; any other object may be one."""


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved it."""
    return any((folder / name).exists() for name in _SAVED)


def list_pool(folder: Path, split: str | None) -> tuple[Kind, list[Path]]:
    """The files of a folder that hold records; an object in JSON beside others is no record.

    Raises:
        UserError: none, of several kinds, of several splits, or of a split beside files of none.
    """
    kinds = _find_kinds(folder)
    if not kinds:
        raise UserError(
            f"data.records: {folder}: a folder without files of JSON, JSON lines, parquet, Arrow "
            "or tar"
        )
    chosen = _choose_split(folder, list(kinds), split)
    found = Counter(kinds[path] for path in chosen)
    if len(found) > 1:
        counts = ", ".join(f"{found[kind]} of {kind}" for kind in _SUFFIXES if kind in found)
        raise UserError(
            f"data.records: {folder} holds files of several kinds ({counts}); name a file, or a "
            "folder of one kind"
        )
    return kinds[chosen[0]], chosen


def _find_kinds(folder: Path) -> dict[Path, Kind]:
    kinds: dict[Path, Kind] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        for kind, suffixes in _SUFFIXES.items():
            if path.name.endswith(suffixes) and not hidden and path.is_file():
                kinds[path] = kind
    if len(set(kinds.values())) == 1:
        others = [path for path in kinds if path.name == _INFO]
        if len(others) == len(kinds):
            return kinds
    else:
        others = [
            path for path, kind in kinds.items() if kind == "json" and not _holds_records(path)
        ]
    if others:
        _say_unread(folder, ", ".join(str(path.relative_to(folder)) for path in others))
    return {path: kind for path, kind in kinds.items() if path not in others}


def _holds_records(path: Path) -> bool:
    """Whether a file in JSON is a list of objects, or several lines of them.

    One object alone describes the other files; so may a list of names or numbers.
    """
    try:
        is_list = detect_format(path) == "json"
        first = [isinstance(value, dict) for _, value in islice(read_json_file(path), 2)]
    except UserError:  # an object over several lines, or no JSON at all
        return False
    return any(first) and (is_list or len(first) > 1)


@cache
def _say_unread(folder: Path, names: str) -> None:
    """Once: a folder is looked at several times in a stage."""
    logger.warning(
        "%s: no records are read of %s (no list nor lines of records, beside files that are)",
        folder,
        names,
    )


def _choose_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_name_split(path.relative_to(folder)), []).append(path)
    named = ", ".join(f"{folder}:{name}" for name in splits if name)
    if split is not None:
        if split not in splits:
            raise UserError(f"data.records: {folder}: no split {split!r}; found {named or 'none'}")
        return splits[split]
    if len(splits) == 1:
        return files
    if "" in splits:
        other = splits[""][0].relative_to(folder)
        raise UserError(
            f"data.records: {folder} holds files of a split beside others ({other}); name one: "
            f"{named}, or a file"
        )
    raise UserError(f"data.records: {folder} holds several splits; name one: {named}")


def name_folders(folder: Path, files: Sequence[Path]) -> list[str]:
    """Of each file the first folder by which they are told apart; "" where it is in none.

    A dataset of several configurations has one for each. Folders that are called as splits, or
    differ in a number only (shards), tell nothing apart.
    """
    inner = [
        [part for part in path.relative_to(folder).parts[:-1] if not _SPLIT.fullmatch(part)]
        for path in files
    ]
    while all(inner) and len({_NUMBER.sub("", parts[0]) for parts in inner}) == 1:
        inner = [parts[1:] for parts in inner]
    return [parts[0] if parts else "" for parts in inner]


def _name_split(path: Path) -> str:
    """That its own name begins with, or one of its folders is called; "" where there is none.

    Behind these counts a word elsewhere in its name, and in those of its folders.
    """
    folders = path.parts[:-1]
    found = [_SPLIT.match(path.name), *map(_SPLIT.fullmatch, folders)]
    found += [_SPLIT.search(path.name), *map(_SPLIT.search, folders)]
    return next((match[1].lower() for match in found if match), "")
