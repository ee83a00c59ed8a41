"""Handwritten digits (scikit-learn's wheel, BSD; UCI, CC BY 4.0): 1,797 of 8 x 8 in 17 greys."""

from __future__ import annotations

import gzip
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from prism_tune.quickstart.assets import SCIKIT_LEARN, read_members
from prism_tune.quickstart.sources.example import (
    SIDE,
    Example,
    Turn,
    encode_png,
    shuffled,
    single,
)

_FILE = "sklearn/datasets/data/digits.csv.gz"
_SIDE, _MAX_GREY = 8, 16
_QUESTIONS = ("which digit is this?", "what digit is written?", "what number do you see?")


def draw_digits(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples of scikit-learn's copy of the UCI test set."""
    (packed,) = read_members(wheels[SCIKIT_LEARN.name], [_FILE])
    lines = gzip.decompress(packed).decode().split()
    rng = random.Random("digits")
    return [_make_example(line, rng) for line in shuffled(dict.fromkeys(lines), "digits")][
        :num_examples
    ]


def _make_example(line: str, rng: random.Random) -> Example:
    *greys, digit = (int(float(value)) for value in line.split(","))
    ink_HW = np.array(greys).reshape(_SIDE, _SIDE) * (255 / _MAX_GREY)
    small = Image.fromarray((255 - ink_HW).astype(np.uint8))
    image = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return single(encode_png(image), f"the digit {digit}", Turn(rng.choice(_QUESTIONS), str(digit)))
