"""What a served page asks for and no file of it holds: pictures by uid or question, single records.

Addresses name records and questions, never paths. One thing is made at a time: a decoded image is
large, and a record's neighbours take a pass over all features.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from threading import Lock

import pyarrow.compute as pc

from prism_tune.errors import UserError
from prism_tune.report.question_pictures import QuestionPictures
from prism_tune.report.relatives import Relatives
from prism_tune.report.section import pack
from prism_tune.report.sections.gallery import describe_one
from prism_tune.report.thumbnails import FULL_SIDE_PIXELS, SIDE_PIXELS, draw_thumbnail
from prism_tune.results.runs import FinishedRun

logger = logging.getLogger(__name__)

_PICTURE = re.compile(r"/(thumbs|images)/([0-9a-f]{32})-(\d{1,3})\.webp")
_RECORD = re.compile(r"/data/record-([0-9a-f]{32})\.js")
_QUESTION = re.compile(r"/answers/([^/]+)/(\d{1,9})-(\d{1,3})\.webp")
_SIDES = {"thumbs": SIDE_PIXELS, "images": FULL_SIDE_PIXELS}
_REMEMBERED_PICTURES = 2048  # mostly of some 5 kB
_REMEMBERED_QUESTIONS = 256  # of some 40 kB
_REMEMBERED_RECORDS = 256


class OnDemand:
    """Of one run; `pictures` of its benchmarks' questions, where they are shown."""

    def __init__(self, run: FinishedRun, pictures: QuestionPictures | None) -> None:
        self._run = run
        self._pictures = pictures
        self._lock = Lock()
        self._draw_again = lru_cache(maxsize=_REMEMBERED_PICTURES)(self._draw)
        self._tell_again = lru_cache(maxsize=_REMEMBERED_RECORDS)(self._tell)
        self._draw_question_again = lru_cache(maxsize=_REMEMBERED_QUESTIONS)(self._draw_question)

    def make(self, path: str) -> tuple[str, bytes] | None:
        """(".webp" or ".js", content) of a decoded path; None where it stands for nothing here."""
        with self._lock:
            try:
                return self._make(path)
            except UserError as error:
                logger.warning("%s", error)
                return None

    def _make(self, path: str) -> tuple[str, bytes] | None:
        suffix, body = ".webp", None
        if picture := _PICTURE.fullmatch(path):
            body = self._draw_again(picture[2], int(picture[3]), _SIDES[picture[1]])
        elif record := _RECORD.fullmatch(path):
            suffix, body = ".js", self._tell_again(record[1])
        elif question := _QUESTION.fullmatch(path):
            body = self._draw_question_again(question[1], int(question[2]), int(question[3]))
        return None if body is None else (suffix, body)

    def _draw(self, uid: str, place: int, side: int) -> bytes | None:
        row = self._find_row(uid)
        return draw_thumbnail(self._run.pool, row, place, side) if row >= 0 else None

    def _tell(self, uid: str) -> bytes | None:
        row = self._find_row(uid)
        if row < 0 or self._run.records is None:
            return None
        relatives = Relatives(self._run, self._run.records)
        return pack(f"record-{uid}", describe_one(self._run, relatives, row))

    def _draw_question(self, benchmark: str, row: int, place: int) -> bytes | None:
        return self._pictures.draw(benchmark, row, place) if self._pictures else None

    def _find_row(self, uid: str) -> int:
        """The record's row; -1 for none."""
        if self._run.records is None:
            return -1
        return int(pc.index(self._run.records.uids, uid).as_py())
