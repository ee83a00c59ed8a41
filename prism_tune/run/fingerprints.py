"""What stands for a value, a file or a model in the record of a stage: SHA-256 of its content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import orjson

_SAMPLED_BYTES = 1 << 20


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value` (keys sorted)."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(value, option=options)).hexdigest()


def fingerprint_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_SAMPLED_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_model(path: str, revision: str | None) -> str:
    """What a model path stands for: a hub id with its revision, or a directory's content.

    Of files over 2 MiB only the size and the first and last MiB are read, so that a 7B
    checkpoint is fingerprinted in milliseconds (a safetensors header is in the first MiB).
    """
    root = Path(path)
    if not root.is_dir():
        return fingerprint({"hub": path, "revision": revision})
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return fingerprint([[str(p.relative_to(root)), _sample(p)] for p in files])


def _sample(path: Path) -> str:
    size = path.stat().st_size
    if size <= 2 * _SAMPLED_BYTES:
        return fingerprint_file(path)
    with path.open("rb") as file:
        head = file.read(_SAMPLED_BYTES)
        file.seek(-_SAMPLED_BYTES, os.SEEK_END)
        return hashlib.sha256(str(size).encode() + head + file.read()).hexdigest()
