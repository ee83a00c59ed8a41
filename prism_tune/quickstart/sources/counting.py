"""Scenes to count in, drawn: one to four things of one kind."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw

from prism_tune.quickstart.sources.example import (
    COLOURS,
    SIDE,
    Colour,
    Example,
    Turn,
    draw_distinct,
    encode_png,
    single,
)

Form = Literal["dot", "square", "triangle"]
FORMS: tuple[Form, ...] = ("dot", "square", "triangle")
_MAX_COUNTED = 4
_CELLS = 4
"""Things lie in cells of a 4 x 4 grid, so that none hides another."""
_QUESTIONS = ("how many {} are there?", "count the {}", "what is the number of {}?")


def draw_scenes(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples drawn by a fixed seed; nothing of the wheels is read."""
    return draw_distinct(_draw, num_examples, "counting")


def _draw(rng: random.Random) -> Example:
    counted = rng.randint(1, _MAX_COUNTED)
    colour, form = rng.choice(list(COLOURS)), rng.choice(FORMS)
    image = Image.new("RGB", (SIDE, SIDE), (250, 250, 250))
    for cell in rng.sample(range(_CELLS**2), counted):
        _draw_thing(ImageDraw.Draw(image), form, COLOURS[colour], cell, rng)
    caption = f"{counted} {colour} {form if counted == 1 else f'{form}s'}"
    turn = Turn(rng.choice(_QUESTIONS).format(f"{form}s"), str(counted))
    return single(encode_png(image), caption, turn)


def _draw_thing(
    canvas: ImageDraw.ImageDraw, form: Form, colour: Colour, cell: int, rng: random.Random
) -> None:
    pitch, size = SIDE // _CELLS, rng.randint(9, 12)
    row, column = divmod(cell, _CELLS)
    x = column * pitch + rng.randint(0, pitch - size - 1)
    y = row * pitch + rng.randint(0, pitch - size - 1)
    if form == "dot":
        canvas.ellipse((x, y, x + size, y + size), colour)
    elif form == "square":
        canvas.rectangle((x, y, x + size, y + size), colour)
    else:
        canvas.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], colour)
