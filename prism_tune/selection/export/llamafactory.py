"""LLaMA-Factory's dataset_info.json: what it calls a file of records, and how that is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prism_tune.errors import UserError
from prism_tune.run.folder import read_json, write_json

_READING = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
"""How the columns of a file are called (its data/README.md)."""


def add_entry(path: Path) -> None:
    """Name a file in the dataset_info.json beside it, among the entries that are there.

    Raises:
        UserError: as `read_info`.
    """
    info = {**read_info(path), path.stem: _describe(path)}
    write_json(path.with_name("dataset_info.json"), info)


def read_info(path: Path) -> dict[str, Any]:
    """The dataset_info.json beside a file; {} where there is none.

    Raises:
        UserError: it is none, or has an entry of the file's name that is of something else.
    """
    info_path = path.with_name("dataset_info.json")
    info = read_json(info_path) if info_path.exists() else {}
    if not isinstance(info, dict):
        raise UserError(f"{info_path}: expected LLaMA-Factory's object, an entry a dataset")
    if info.get(path.stem, _describe(path)) != _describe(path):
        raise UserError(
            f"{info_path}: its entry `{path.stem}` is of another data set, and left as it is; "
            f"give the file another name than {path.name}, or delete that entry"
        )
    return info


def _describe(path: Path) -> dict[str, Any]:
    return {"file_name": path.name, **_READING}
