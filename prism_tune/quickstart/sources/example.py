"""What a source of the mix yields: an image, what can be said of it, and what can be asked."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image

Item = TypeVar("Item")

SIDE = 56
"""Pixels of a drawn image: what the model's processor makes of every image."""

Colour = tuple[int, int, int]
COLOURS: Mapping[str, Colour] = {
    "red": (214, 39, 40),
    "blue": (31, 80, 200),
    "green": (44, 150, 44),
    "orange": (255, 140, 0),
    "purple": (140, 60, 180),
    "black": (20, 20, 20),
}


@dataclass(frozen=True)
class Turn:
    """A question and its answer of one word."""

    question: str
    answer: str


@dataclass(frozen=True)
class Example:
    """One image, or none, with everything that the mix needs of it.

    Attributes:
        image: a PNG file's bytes; None where the questions are about nothing but words.
        caption: what the projector is aligned by; empty where there is no image.
        talks: one training record each, of one turn or several.
        asked: the question when it is held out: one that cannot be answered without looking.
    """

    image: bytes | None
    caption: str
    talks: tuple[tuple[Turn, ...], ...]
    asked: Turn


class Source(Protocol):
    """Draws examples, the same at every call; no image, or question without one, comes twice."""

    def __call__(self, wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
        """Of what the wheels hold (package name -> path), the first so many."""


def single(image: bytes | None, caption: str, turn: Turn) -> Example:
    """An example with one question, which is also the one held out."""
    return Example(image, caption, ((turn,),), turn)


def shuffled(items: Iterable[Item], seed: str) -> list[Item]:
    """A fair order, the same at every call."""
    found = list(items)
    random.Random(seed).shuffle(found)
    return found


def encode_png(image: Image.Image) -> bytes:
    """A PNG file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def draw_distinct(draw: Callable[[random.Random], Example], num: int, seed: str) -> list[Example]:
    """So many drawings of which no two are the same picture, the same at every call."""
    rng = random.Random(seed)
    found: dict[bytes | None, Example] = {}
    while len(found) < num:
        example = draw(rng)
        found.setdefault(example.image, example)
    return list(found.values())
