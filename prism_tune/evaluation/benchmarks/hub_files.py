"""A dataset's parquet files as the hub lays them out: those of the split a benchmark is."""

from __future__ import annotations

from pathlib import Path

from prism_tune.errors import UserError

_SPLITS = {name: name for name in ("train", "dev", "validation", "test", "testdev")} | {
    "val": "validation"
}
"""The hub's names of splits, two of them for one."""


def find_parquet(path: Path, split: str) -> list[Path]:
    """The parquet files a path stands for: itself, or those in the folder, sorted.

    Where the folder has several splits, as a whole dataset of the hub has, only `split` counts.

    Raises:
        UserError: several splits, and not that one.
    """
    if path.suffix == ".parquet":
        return [path]
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    by_split = {file: _name_split(file) for file in files}
    found = set(by_split.values()) - {""}
    if len(found) < 2:
        return files
    wanted = _SPLITS[split]
    if wanted not in found:
        raise UserError(
            f"{path}: parquet files of the splits {', '.join(sorted(found))}; expected those of "
            f"{split}; name the file or the folder of one split"
        )
    return [file for file in files if by_split[file] == wanted]


def _name_split(file: Path) -> str:
    """Of `test-00000-of-00001.parquet`, `test.parquet`, `test/0000.parquet`; empty for others."""
    name = file.parent.name if file.stem.isdecimal() else file.stem.partition("-")[0]
    return _SPLITS.get(name, "")
