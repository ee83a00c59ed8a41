"""A pool whose redundancy is known: the quickstart's drawings, and copies planted among them.

easy-VQA's questions and images go in; LLaVA records, the planted ones' kinds and the images' bytes
come out. Of 700 images 280 are drawn fairly, 315 repeat 105 of these three times each, and 105
are too many of one class:

- exact: the same file under another name;
- recoded: saved as JPEG at quality 85, 60 or 35;
- cropped: 2, 3 or 4 pixels cut off two sides, and enlarged to the old size;
- over: further *distinct* drawings of one colour.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from prism_tune.quickstart.pool import DrawingQuestion, build_pool, classify_question

Kind = Literal["exact", "recoded", "cropped"]
KINDS: tuple[Kind, ...] = ("exact", "recoded", "cropped")

NUM_ORIGINALS = 280
NUM_COPIED = 35
"""Originals that are copied, for each kind."""
NUM_COPIES = 3
NUM_OVER = 105
OVER_COLOUR = "red"

_QUALITIES = (85, 60, 35)
_MARGINS = (2, 3, 4)
_SEED = 0


@dataclass(frozen=True)
class PlantedImages:
    """Which drawings a planted pool is made of; `copied` are originals, `over` are not."""

    originals: tuple[int, ...]
    copied: dict[Kind, tuple[int, ...]]
    over: tuple[int, ...]


def plan_images(questions: Iterable[DrawingQuestion], pool_images: Sequence[int]) -> PlantedImages:
    """Draw the images; the same at every call.

    Args:
        questions: all of the training set.
        pool_images: those of the comparison's pool, of which the originals are drawn.
    """
    rng = random.Random(_SEED)
    originals = rng.sample(sorted(pool_images), NUM_ORIGINALS)
    copied = {
        kind: tuple(originals[k * NUM_COPIED : (k + 1) * NUM_COPIED])
        for k, kind in enumerate(KINDS)
    }
    of_colour = {
        question.image
        for question in questions
        if question.answer == OVER_COLOUR and classify_question(question.text) == "colour"
    }
    over = rng.sample(sorted(of_colour - set(originals)), NUM_OVER)
    return PlantedImages(tuple(originals), copied, tuple(over))


def build_planted_pool(
    questions: Sequence[DrawingQuestion], images: PlantedImages
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str | None]]]:
    """LLaVA records, and for each planted one {id: {kind, of}} as `compare.planted` reads it."""
    records = build_pool(questions, images.originals)
    planted: dict[str, dict[str, str | None]] = {}
    copies = []
    for kind in KINDS:
        sources = {f"{image}.png": image for image in images.copied[kind]}
        for record in records:
            if record["image"] not in sources:
                continue
            for number in range(NUM_COPIES):
                name = copy_name(sources[record["image"]], kind, number)
                copy = {**record, "id": f"{record['id']}-{kind}-{number}", "image": name}
                copies.append(copy)
                planted[copy["id"]] = {"kind": kind, "of": record["id"]}
    over = build_pool(questions, images.over)
    planted |= {record["id"]: {"kind": "over", "of": None} for record in over}
    return [*records, *copies, *over], planted


def copy_name(image: int, kind: Kind, number: int) -> str:
    """The file name of a copy."""
    return f"{image}-{kind}-{number}.{'jpg' if kind == 'recoded' else 'png'}"


def copy_image(content: bytes, kind: Kind, number: int) -> bytes:
    """The bytes of copy `number` of a PNG drawing."""
    makers: dict[Kind, Callable[[bytes, int], bytes]] = {
        "exact": lambda same, _: same,
        "recoded": _recode,
        "cropped": _crop,
    }
    return makers[kind](content, number)


def _recode(content: bytes, number: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "JPEG", quality=_QUALITIES[number])
    return buffer.getvalue()


def _crop(content: bytes, number: int) -> bytes:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    margin = _MARGINS[number]
    width, height = image.size
    corner = (margin, 0) if number % 2 else (0, margin)
    box = (*corner, corner[0] + width - margin, corner[1] + height - margin)
    buffer = io.BytesIO()
    image.crop(box).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
