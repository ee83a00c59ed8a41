"""Pictures of benchmark questions: images of their folder or annotation file in, WebP out.

Large enough to be read in a dialog, at most 640 pixels a side. A bounded number is written beside
the page; the server draws any other by benchmark, row and place, so that no request names a path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from prism_tune.data.image_paths import ImageFolders
from prism_tune.data.spawned import map_spawned
from prism_tune.report.answer_source import AnswerSource
from prism_tune.report.section import PageFolder
from prism_tune.report.thumbnails import draw_image, draw_reason
from prism_tune.run.folder import RunDir
from prism_tune.schema import PlacedImage

SIDE_PIXELS = 640

_FEWEST_FOR_PROCESSES = 200
_PER_TASK = 8


def write_pictures(places: Iterable[PlacedImage], page: PageFolder) -> dict[PlacedImage, str]:
    """Write each image to `pictures/`, once where images are the same; paths relative to the page.

    One that cannot be shown becomes a picture of the reason.
    """
    todo = list(dict.fromkeys(places))
    drawn = map_spawned(_draw, todo, fewest=_FEWEST_FOR_PROCESSES, per_task=_PER_TASK)
    paths = {}
    for place, content in zip(todo, drawn, strict=True):
        digest = hashlib.blake2b(content, digest_size=10).hexdigest()
        paths[place] = page.add_picture(digest, content)
    return paths


class QuestionPictures:
    """The images of a run's questions, read when the first one of a benchmark is asked for."""

    def __init__(self, run: RunDir, source: AnswerSource) -> None:
        self._run = run
        self._source = source
        self._images: dict[str, list[tuple[PlacedImage, ...]]] = {}

    def draw(self, benchmark: str, row: int, place: int) -> bytes | None:
        """The picture of a question's image; None where there is no such benchmark, row or image.

        Raises:
            UserError: a broken file.
        """
        if benchmark not in self._images:
            if benchmark not in self._source.list_finished(self._run):
                return None
            self._images[benchmark] = self._source.read_benchmark(self._run, benchmark).images
        images = self._images[benchmark]
        if not 0 <= row < len(images) or not 0 <= place < len(images[row]):
            return None
        return _draw(images[row][place])


def _draw(place: PlacedImage) -> bytes:
    if not place.name:
        return draw_reason("image_missing")
    return draw_image(ImageFolders(place.folder, place.roots), place.name, SIDE_PIXELS)[0]
