"""Words to read, drawn in twelve of the fonts in matplotlib's wheel.

DejaVu (Bitstream Vera licence), STIX (OFL), Computer Modern (BaKoMa licence).
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from prism_tune.quickstart.assets import MATPLOTLIB, read_members
from prism_tune.quickstart.sources.example import (
    COLOURS,
    SIDE,
    Example,
    Turn,
    draw_distinct,
    encode_png,
    single,
)

WORDS = ("sun", "car", "hat", "box", "key", "egg", "bus", "tree", "fish", "moon", "wolf", "jam")
_FONTS = [
    f"matplotlib/mpl-data/fonts/ttf/{name}.ttf"
    for name in (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"),
        *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral"),
        *("STIXGeneralBol", "cmr10", "cmss10", "cmtt10"),
    )
]
_SIZES = range(20, 27)
_QUESTIONS = ("what word is written?", "what does it say?", "read the word")


def draw_words(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples drawn by a fixed seed."""
    fonts = read_members(wheels[MATPLOTLIB.name], _FONTS)
    return draw_distinct(partial(_draw, fonts), num_examples, "words")


def _draw(fonts: list[bytes], rng: random.Random) -> Example:
    word, content, size = rng.choice(WORDS), rng.choice(fonts), rng.choice(_SIZES)
    ink = rng.choice(list(COLOURS.values()))
    paper = tuple(rng.randint(225, 255) for _ in range(3))
    left, top, right, bottom = 0.0, 0.0, float(SIDE), 0.0
    while right - left > SIDE - 2:  # smaller, until it fits
        font = ImageFont.truetype(io.BytesIO(content), size)
        left, top, right, bottom = font.getbbox(word)
        size -= 1
    x = rng.randint(1, int(SIDE - 1 - (right - left))) - left
    y = rng.randint(1, int(SIDE - 1 - (bottom - top))) - top
    image = Image.new("RGB", (SIDE, SIDE), paper)
    ImageDraw.Draw(image).text((x, y), word, font=font, fill=ink)
    return single(encode_png(image), f"the word {word}", Turn(rng.choice(_QUESTIONS), word))
