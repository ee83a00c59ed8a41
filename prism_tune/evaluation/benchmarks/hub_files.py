"""A dataset's parquet files as the hub lays them out: those of the split a benchmark is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from prism_tune.errors import UserError

_SPLITS = {name: name for name in ("train", "dev", "validation", "test", "testdev")} | {
    "val": "validation"
}
"""The hub's names of splits, two of them for one."""


def find_parquet(path: Path, split: str, configurations: Collection[str] = ()) -> list[Path]:
    """The parquet files a path stands for: itself, or those in the folder, sorted.

    Of a whole dataset of the hub, only `split` counts.

    Args:
        path: a file or folder.
        split: which the benchmark is.
        configurations: the folders that hold it together, where it is more than one.

    Raises:
        UserError: several splits, and not that one; or several folders with files of it.
    """
    if path.suffix == ".parquet":
        return [path]
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    of_split = _choose_split(path, split, files)
    folders = {file: _find_configuration(file, path) for file in of_split}
    found = sorted(set(folders.values()))
    if len(found) < 2:
        return of_split
    own = [file for file in of_split if folders[file].name in configurations]
    if not own:
        listed = ", ".join(str(folder.relative_to(path)) for folder in found)
        raise UserError(
            f"{path}: files of {split} in several folders, which are different data: {listed}; "
            "name one of them"
        )
    return own


def _choose_split(path: Path, split: str, files: list[Path]) -> list[Path]:
    by_split = {file: _name_split(file) for file in files}
    found = set(by_split.values())
    wanted = _SPLITS[split]
    if wanted in found:
        return [file for file in files if by_split[file] == wanted]
    if len(found) > 1:
        listed = ", ".join(name or "other names" for name in sorted(found))
        raise UserError(
            f"{path}: parquet files of the splits {listed}; expected those of {split}; name the "
            "file or the folder of one split"
        )
    return files


def _name_split(file: Path) -> str:
    """Of `test-00000-of-00001.parquet`, `test.parquet`, `test/0000.parquet`; empty for others."""
    own = _SPLITS.get(file.stem.partition("-")[0])
    return own or _SPLITS.get(file.parent.name, "")


def _find_configuration(file: Path, root: Path) -> Path:
    """The folder that a configuration's files lie in, above one that is named after a split."""
    folder = file.parent
    return folder.parent if folder.name in _SPLITS and folder != root else folder
