"""Small pictures: image files in, WebP files out; those of records have 192 pixels a side at most.

An image that cannot be shown becomes a picture that says why. Nothing outside the image folder is
opened, and nothing large is inflated.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from prism_tune.data.image_paths import ImageError, ImageFolders
from prism_tune.data.images import decode, opened_image
from prism_tune.data.policy import Reason
from prism_tune.data.records import Pool
from prism_tune.data.spawned import map_spawned
from prism_tune.results.runs import FinishedRun

SIDE_PIXELS = 192
FULL_SIDE_PIXELS = 1600
MOST_IMAGES = 8
"""Of one record, that have thumbnails."""

_MAX_DECODED_PIXELS = 25_000_000  # at most 100 MB a process; a JPEG is decoded smaller than it is
_QUALITY = 72
_FEWEST_FOR_PROCESSES = 400  # below, starting them takes longer than the work
_NAMES_PER_TASK = 16


def write_thumbnails(
    run: FinishedRun, rows: Iterable[int], folder: Path
) -> dict[str, tuple[str, ...]]:
    """Write the images of each record to `thumbs/`, once where records share them.

    Args:
        run: one with scores; its pool and image folder.
        rows: records of the pool; one without image gets no thumbnail.
        folder: of the page.

    Returns:
        uid -> paths relative to the page, of the record's first `MOST_IMAGES`.
    """
    names_of = {row: names[:MOST_IMAGES] for row in rows if (names := run.pool.images(row))}
    path_of: dict[str, str] = {}
    (folder / "thumbs").mkdir(parents=True, exist_ok=True)
    todo = []
    for name in dict.fromkeys(chain.from_iterable(names_of.values())):
        path_of[name] = f"thumbs/{hashlib.blake2b(name.encode(), digest_size=10).hexdigest()}.webp"
        if not (folder / path_of[name]).exists():
            todo.append(name)
    draw = partial(draw_image, run.pool.image_folders)
    drawn = map_spawned(draw, todo, fewest=_FEWEST_FOR_PROCESSES, per_task=_NAMES_PER_TASK)
    for name, (content, reason) in zip(todo, drawn, strict=True):
        if reason:
            path_of[name] = f"thumbs/{reason}.webp"
        (folder / path_of[name]).write_bytes(content)
    assert run.records is not None
    return {
        run.records.uid(row): tuple(path_of[name] for name in names)
        for row, names in names_of.items()
    }


def draw_thumbnail(pool: Pool, row: int, place: int = 0, side: int = SIDE_PIXELS) -> bytes | None:
    """The WebP of one of a record's images, or of the reason why there is none; None: no such."""
    names = pool.images(row)
    return draw_image(pool.image_folders, names[place], side)[0] if place < len(names) else None


def draw_image(folders: ImageFolders, name: str, side: int = SIDE_PIXELS) -> tuple[bytes, str]:
    """A picture, and why it does not show the image ("" where it does)."""
    try:
        return _encode(_shrink(folders.resolve(name), side)), ""
    except ImageError as error:
        return draw_reason(error.reason), error.reason


def draw_reason(reason: Reason) -> bytes:
    """A picture of the words that say why an image cannot be shown."""
    image = Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS * 3 // 4), "#e6e9ee")
    font = ImageFont.load_default(16)
    centre = (image.width / 2, image.height / 2)
    text = reason.replace("_", " ")
    ImageDraw.Draw(image).text(centre, text, fill="#3c444d", font=font, anchor="mm")
    return _encode(image)


def _shrink(path: Path, side: int) -> Image.Image:
    with opened_image(path) as image:
        image.draft("RGB", (2 * side, 2 * side))
        if image.width * image.height > _MAX_DECODED_PIXELS:
            size = f"{image.width} x {image.height}"
            raise ImageError("image_bomb", f"{path}: {size} pixels are too many for a thumbnail")
        small = decode(path, image)
        small.thumbnail((side, side), reducing_gap=2.0)
        return small


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()
