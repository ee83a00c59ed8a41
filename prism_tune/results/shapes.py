"""How large a model is, for estimates before it is loaded: read from a checkpoint, or assumed.

Reads the headers of safetensors files (names and shapes), never a weight.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DECODER_LAYER = re.compile(r"\blayers\.(\d+)\.")
_VISION = re.compile(r"vis(ion|ual)")
_PROJECTOR = re.compile(r"projector|connector|merger")
_EMBEDDINGS = re.compile(r"embed_tokens|lm_head")
_CLIP_LARGE = 304_000_000
"""Parameters of CLIP ViT-L/14-336."""


@dataclass(frozen=True)
class Shape:
    """Numbers of parameters, by part; `num_image_tokens` are what one image takes."""

    num_layers: int
    layers: int
    embeddings: int
    vision: int
    projector: int
    width: int
    num_image_tokens: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.layers + self.embeddings + self.vision + self.projector


def find_shape(path: str) -> tuple[Shape | None, bool]:
    """A model's shape, and whether it was read from its checkpoint (else assumed, or None)."""
    folder = Path(path)
    if (folder / "config.json").exists() and list(folder.glob("*.safetensors")):
        return _read_shape(folder), True
    return ASSUMED_SHAPES.get(path), False


def _read_shape(folder: Path) -> Shape:
    sizes = {name: math.prod(shape) for name, shape in _read_headers(folder)}
    widths = [shape[-1] for name, shape in _read_headers(folder) if _EMBEDDINGS.search(name)]
    vision = {n for n in sizes if _VISION.search(n) and not _PROJECTOR.search(n)}
    projector = {n for n in sizes if _PROJECTOR.search(n)}
    layer_of = {n: m for n in sizes.keys() - vision - projector if (m := _DECODER_LAYER.search(n))}
    numbers = [int(found.group(1)) for found in layer_of.values()]
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return Shape(
        num_layers=max(numbers, default=-1) + 1,
        layers=sum(sizes[n] for n in layer_of),
        embeddings=sum(size for n, size in sizes.items() if _EMBEDDINGS.search(n)),
        vision=sum(sizes[n] for n in vision),
        projector=sum(sizes[n] for n in projector),
        width=max(widths, default=0),
        num_image_tokens=int(config.get("image_seq_length") or 576),
    )


def _read_headers(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor; a file begins with its header's length and the header."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield name, tensor["shape"]


def _decoder(
    *, width: int, num_layers: int, hidden: int, vocabulary: int, keys: int = 0, matrices: int = 3
) -> Shape:
    """LLaVA-1.5's parts around a decoder; `keys` is the width of keys and values where narrower."""
    attention = 2 * width * width + 2 * width * (keys or width)
    return Shape(
        num_layers=num_layers,
        layers=num_layers * (attention + matrices * width * hidden),
        embeddings=2 * vocabulary * width,
        vision=_CLIP_LARGE,
        projector=(1024 + width) * width,
        width=width,
        num_image_tokens=576,
    )


_PHI = _decoder(width=2560, num_layers=32, hidden=10240, vocabulary=51_200, matrices=2)
_LLAMA3 = _decoder(width=4096, num_layers=32, hidden=14336, vocabulary=128_256, keys=1024)
_QWEN = _decoder(width=3584, num_layers=28, hidden=18944, vocabulary=152_064, keys=512)
ASSUMED_SHAPES = {
    "data/models/llava-1.5-7b-pretrain": _decoder(
        width=4096, num_layers=32, hidden=11008, vocabulary=32_000
    ),
    "data/models/llava-1.5-13b-pretrain": _decoder(
        width=5120, num_layers=40, hidden=13824, vocabulary=32_000
    ),
    "data/models/phi-2-clip": _PHI,
    "runs/phi2_3b_align/training/final": _PHI,
    "data/models/qwen2.5-7b-clip": _QWEN,
    "runs/qwen25_7b_base_align/training/final": _QWEN,
    "data/models/qwen2.5-7b-instruct-clip": _QWEN,
    "runs/qwen25_7b_instruct_align/training/final": _QWEN,
    "data/models/llama-3-8b-clip": _LLAMA3,
    "runs/llama3_8b_align/training/final": _LLAMA3,
    # SmolLM2-135M (its embeddings serve as head) and DINOv2-small, 16 image tokens.
    "data/quickstart/model": Shape(30, 106_200_000, 28_300_000, 22_000_000, 600_000, 576, 16),
}
"""By the `model.path` of our presets, for plans made before the checkpoints are there."""
