"""What stands for a value, a file or a model in the record of a stage: SHA-256 of its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import orjson

_SAMPLED_BYTES = 1 << 20
_LARGE_BYTES = 1 << 30
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_MODEL_FILES = (
    *_WEIGHTS,
    "config.json",
    "*_config.json",  # of generation, tokenizer, processor and its parts, adapter, quantisation
    "modules.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.jinja",
)
_PICKLED = ("*.bin", "*.bin.index.json", "*.pth")
"""Weights where there are no safetensors, as in the layout of the original LLaVA code."""

_STATES = ("optimizer*", "scheduler*", "training_args*", "rng_state*", "random_states*")


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


def fingerprint_large(path: Path) -> str:
    """SHA-256 of a file's content; over 1 GiB of its size and its first and last MiB."""
    return _sample(path) if path.stat().st_size > _LARGE_BYTES else fingerprint_file(path)


def fingerprint_path(path: Path) -> str:
    """SHA-256 of a file, of every file below a folder, or of the name where neither is there.

    Of files over 2 MiB in a folder only the size and the first and last MiB are read.
    """
    if path.is_file():
        return fingerprint_file(path)
    if not path.is_dir():
        return fingerprint({"name": str(path)})
    return _fingerprint_files(path, (file for file in path.rglob("*") if file.is_file()))


def fingerprint_model(path: str, revision: str | None) -> str:
    """What a model path stands for: a hub id with its revision, or the files that make the model.

    These are weights, configs, tokenizer, processor and chat template, and code where a config
    names some (`auto_map`). A README, logs or an optimiser's state beside them change nothing.
    Of files over 2 MiB only the size and the first and last MiB are read, so that a 7B
    checkpoint is fingerprinted in milliseconds (a safetensors header is in the first MiB).
    """
    root = Path(path)
    if not root.is_dir():
        return fingerprint({"hub": path, "revision": revision})
    return _fingerprint_files(root, model_files(root))


def fingerprint_processor(path: str, revision: str | None) -> str:
    """The same without the weights: what tokens a text and an image become."""
    root = Path(path)
    if not root.is_dir():
        return fingerprint({"hub": path, "revision": revision})
    weights = (*_WEIGHTS, *_PICKLED)
    return _fingerprint_files(root, (f for f in model_files(root) if not _matches(f, weights)))


def model_files(root: Path) -> list[Path]:
    """The files of a model directory that its weights, its text and its pictures depend on."""
    beside = [path for path in root.iterdir() if path.is_file()]
    made_of = [path for path in beside if _matches(path, _MODEL_FILES)]
    if not any(path.suffix == ".safetensors" for path in made_of):
        made_of += [p for p in beside if _matches(p, _PICKLED) and not _matches(p, _STATES)]
    made_of += (root / "additional_chat_templates").glob("*.jinja")
    configs = (path for path in made_of if path.suffix == ".json")
    if any(b'"auto_map"' in path.read_bytes() for path in configs if _is_small(path)):
        made_of += root.rglob("*.py")
    return made_of


def _matches(path: Path, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in patterns)


def _fingerprint_files(root: Path, files: Iterable[Path]) -> str:
    return fingerprint([[str(file.relative_to(root)), _sample(file)] for file in sorted(files)])


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= 2 * _SAMPLED_BYTES


def _sample(path: Path) -> str:
    if _is_small(path):
        return fingerprint_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SAMPLED_BYTES)
        file.seek(-_SAMPLED_BYTES, os.SEEK_END)
        return hashlib.sha256(str(size).encode() + head + file.read()).hexdigest()
