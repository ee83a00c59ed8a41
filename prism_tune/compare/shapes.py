"""How large a model and a pool are, for estimates before anything is loaded.

Reads the headers of safetensors files (names and shapes), never a weight; of text, 4 characters
count as a token.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prism_tune.config.sections import Config
from prism_tune.data.records import open_pool
from prism_tune.errors import UserError, first_line
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.stage import Stage

_DECODER_LAYER = re.compile(r"\blayers\.(\d+)\.")
_VISION = re.compile(r"vis(ion|ual)")
_PROJECTOR = re.compile(r"projector|connector|merger")
_EMBEDDINGS = re.compile(r"embed_tokens|lm_head")


_CHARACTERS_PER_TOKEN = 4
_SHARE_OF_TEXT = 0.8  # of a record's JSON


@dataclass(frozen=True)
class Shape:
    """Numbers of parameters, by part; `num_image_tokens` are what one image takes.

    `embeddings` are the table of the `vocabulary` words and the output head, where that is no tied
    one.
    """

    num_layers: int
    layers: int
    embeddings: int
    vision: int
    projector: int
    width: int
    num_image_tokens: int
    vocabulary: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.layers + self.embeddings + self.vision + self.projector

    @property
    def head(self) -> int:
        """What multiplies in the output head; the rest of `embeddings` is looked into."""
        return min(self.vocabulary * self.width, self.embeddings)


@dataclass(frozen=True)
class PoolSize:
    """A pool in numbers; an audit of it has counted `mean_tokens` a record, and `longest`."""

    num_records: int
    num_image_records: int
    num_images: int
    num_bytes: int
    mean_tokens: float | None = None
    longest: int | None = None
    image_tokens: float = 0.0

    @property
    def text_tokens(self) -> float:
        """Of a record, on average."""
        if self.mean_tokens is not None:
            share = self.num_image_records / self.num_records
            return max(0.0, self.mean_tokens - share * self.image_tokens)
        return _SHARE_OF_TEXT * self.num_bytes / self.num_records / _CHARACTERS_PER_TOKEN


def read_shape(path: str) -> Shape | None:
    """A model's shape out of its checkpoint; None where there is none."""
    folder = Path(path)
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        return None
    tensors = _read_shapes(folder)
    sizes = {name: math.prod(shape) for name, shape in tensors.items()}
    words = [s for name, s in tensors.items() if _EMBEDDINGS.search(name) and len(s) == 2]
    vision = {n for n in sizes if _VISION.search(n) and not _PROJECTOR.search(n)}
    projector = {n for n in sizes if _PROJECTOR.search(n)}
    layer_of = {n: m for n in sizes.keys() - vision - projector if (m := _DECODER_LAYER.search(n))}
    numbers = [int(found.group(1)) for found in layer_of.values()]
    config = read_object(folder / "config.json")
    num_image_tokens = config.get("image_seq_length") or 576
    if not isinstance(num_image_tokens, int):
        raise UserError(
            f"{folder / 'config.json'}: image_seq_length = {num_image_tokens!r}: expected a whole "
            "number; an interrupted download? get that file again"
        )
    return Shape(
        num_layers=max(numbers, default=-1) + 1,
        layers=sum(sizes[n] for n in layer_of),
        embeddings=sum(size for n, size in sizes.items() if _EMBEDDINGS.search(n)),
        vision=sum(sizes[n] for n in vision),
        projector=sum(sizes[n] for n in projector),
        width=max((width for _, width in words), default=0),
        num_image_tokens=num_image_tokens,
        vocabulary=max((number for number, _ in words), default=0),
    )


def measure_pool(config: Config, audit: Path | None = None) -> PoolSize | None:
    """The pool's size; None where the file is not there yet, or is a folder.

    Args:
        config: whose pool, and whose own audit has counted tokens.
        audit: the folder of another that counts where it was of this pool: a grid's.
    """
    path = Path(config.data.records)
    if not path.is_file():
        return None
    pool = open_pool(config.data)
    if not len(pool):
        raise UserError(f"{path}: no usable record in it: nothing to plan for")
    own = RunDir(Path(config.output_dir) / config.name).audit
    lengths = _read_lengths(own, config) or (_read_lengths(audit, config) if audit else {})
    return PoolSize(
        num_records=len(pool),
        num_image_records=int((~pool.is_text_only_N).sum()),
        num_images=len(pool.unique_images()),
        num_bytes=path.stat().st_size,
        mean_tokens=lengths.get("mean") or None,
        longest=lengths.get("longest"),
    )


def _read_lengths(audit: Path, config: Config) -> dict[str, Any]:
    """What a finished audit of this pool has counted."""
    audited = (Stage(audit).record() or {}).get("config", {}).get("data", {})
    if audited.get("records") != config.data.records:
        return {}
    lengths: dict[str, Any] = read_object(audit / "audit.json").get("lengths", {})
    return lengths


def _read_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor, by its name; of the headers alone."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                names = file.keys()
                shapes |= {name: file.get_slice(name).get_shape() for name in names}
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} is damaged or not whole ({first_line(error)}); an interrupted download? "
                "get that file again"
            ) from error
    return shapes
