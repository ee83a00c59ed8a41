"""Bar charts, drawn: three or four bars of different colours and heights on a ground line."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from prism_tune.quickstart.sources.example import (
    COLOURS,
    SIDE,
    Example,
    Turn,
    draw_distinct,
    encode_png,
)

_QUESTIONS = {
    "tallest": ("which bar is the tallest?", "what colour is the highest bar?"),
    "shortest": ("which bar is the shortest?", "what colour is the lowest bar?"),
}
_LEFT, _GROUND, _TOP = 3, 53, 5
_STEP = 8
"""Pixels by which two bars differ at least."""


def draw_charts(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples drawn by a fixed seed; nothing of the wheels is read."""
    return draw_distinct(_draw, num_examples, "charts")


def _draw(rng: random.Random) -> Example:
    num_bars = rng.choice((3, 4))
    colours = rng.sample(list(COLOURS), num_bars)
    steps = rng.sample(range(1, (_GROUND - _TOP) // _STEP + 1), num_bars)
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    canvas = ImageDraw.Draw(image)
    pitch = (SIDE - 2 * _LEFT) // num_bars
    for place, (colour, step) in enumerate(zip(colours, steps, strict=True)):
        height = step * _STEP + rng.randint(-2, 2)
        left = _LEFT + place * pitch + 1
        canvas.rectangle((left, _GROUND - height, left + pitch - 3, _GROUND), COLOURS[colour])
    canvas.line((0, _GROUND + 1, SIDE, _GROUND + 1), (60, 60, 60))
    known = {
        "tallest": colours[steps.index(max(steps))],
        "shortest": colours[steps.index(min(steps))],
    }
    turns = [Turn(rng.choice(_QUESTIONS[kind]), answer) for kind, answer in known.items()]
    rng.shuffle(turns)
    caption = f"tallest {known['tallest']}, shortest {known['shortest']}"
    return Example(encode_png(image), caption, (tuple(turns),), turns[0])
