"""Animal-MNIST (wheel `animal-mnist`, MIT): 10,000 silhouettes of ten animals, 28 x 28.

Its arrays are pickles. They are never unpickled, which could run anything: the opcodes are walked,
and the one long byte string among them is the array's memory. Of equal pictures the first is taken.
"""

from __future__ import annotations

import gzip
import pickletools
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from prism_tune.errors import UserError
from prism_tune.quickstart.assets import ANIMAL_MNIST, read_members
from prism_tune.quickstart.sources.example import (
    Example,
    Turn,
    encode_png,
    shuffled,
    single,
)

_FOLDER = "animal_mnist/data/Animal_MNIST"
_FILES = [f"{_FOLDER}/animal_{what}_version_3.gz" for what in ("data", "label")]
_SIDE = 28
_NAMES = (
    *("bear", "bird", "cat", "cow", "dog"),
    *("elephant", "giraffe", "horse", "sheep", "zebra"),
)
_QUESTIONS = ("which animal is this?", "what animal is shown?", "what animal do you see?")


def draw_animals(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples of Animal-MNIST."""
    pixels, labels = read_members(wheels[ANIMAL_MNIST.name], _FILES)
    images_NHW = np.frombuffer(read_array(pixels), np.uint8).reshape(-1, _SIDE, _SIDE)
    labels_N = np.frombuffer(read_array(labels), "<i8")
    distinct = {
        image.tobytes(): (image, _NAMES[label])
        for image, label in reversed(list(zip(images_NHW, labels_N, strict=True)))
    }
    rng = random.Random("animals")
    return [
        single(
            encode_png(Image.fromarray(image)),
            f"the animal {name}",
            Turn(rng.choice(_QUESTIONS), name),
        )
        for image, name in shuffled(distinct.values(), "animals")[:num_examples]
    ]


def read_array(packed: bytes) -> bytes:
    """The memory of the array in a gzipped pickle of one, without unpickling it.

    Raises:
        UserError: a pickle that does not hold exactly one array's memory.
    """
    content = gzip.decompress(packed)
    held = [
        argument
        for opcode, argument, _ in pickletools.genops(content)
        if opcode.name in ("BINBYTES", "BINBYTES8") and isinstance(argument, bytes)
    ]
    if len(held) != 1:
        raise UserError(f"a pickled array: expected one byte string in it, found {len(held)}")
    return held[0]
