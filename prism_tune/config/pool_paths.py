"""Where a pool lies: the file or folder that `data.records` names, and that of its images."""

from __future__ import annotations

from pathlib import Path

from prism_tune.config.sections import DataConfig


def part_split(records: str) -> tuple[Path, str | None]:
    """The path, and the split behind the colon where it is a folder that is there."""
    folder, _, split = records.rpartition(":")
    if folder and not Path(records).exists() and Path(folder).is_dir():
        return Path(folder), split
    return Path(records), None


def find_image_dir(config: DataConfig) -> Path:
    """`data.image_dir`, or the folder that the records lie in: of a folder of files, itself."""
    if config.image_dir:
        return Path(config.image_dir)
    path, _ = part_split(config.records)
    return path if path.is_dir() else path.parent
