"""Progress: a bar on a terminal, a line now and then in a log; on the main process only.

Both say what is done, of how many, the number per second and the time left. The lines go into the
run's log.txt in any case.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from prism_tune.processes import is_main
from prism_tune.run.log import AS_BAR, is_terminal

logger = logging.getLogger(__name__)

_LINE_SECONDS = 15.0


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class ProgressLines:
    """A line of the log at most every 15 seconds, and the last one."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._begin = self._said = time.monotonic()
        self._first: int | None = None

    def show(self, done: int, beside: str = "") -> None:
        """So many are done; says so when it is time.

        Args:
            done: of the total, those of an earlier attempt included.
            beside: what else to say, for example the loss.
        """
        now = time.monotonic()
        if self._first is None:
            self._first, self._begin = done, now
        if done < self._total and now - self._said < _LINE_SECONDS:
            return
        self._said = now
        took, number = now - self._begin, done - self._first
        speed = f", {number / took:.3g}/s" if number and took > 0 else ""
        left = (self._total - done) * took / number if number else None
        time_left = f", {_format(left)} left" if left else ""
        logger.info(
            "%s: %d of %d (%d %%)%s%s%s",
            *(self._title, done, self._total, 100 * done // max(self._total, 1), speed, time_left),
            f", {beside}" if beside else "",
            extra=AS_BAR,
        )


class UnitProgress:
    """Over `total` units of what `title` says; use as a context manager."""

    def __init__(self, total: int, title: str) -> None:
        self._lines = ProgressLines(title, total) if is_main() and total else None
        self._done = 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_main() or total == 0 or not is_terminal(),
        )
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> UnitProgress:
        self._progress.start()
        if self._lines:
            self._lines.show(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, num_units: int = 1) -> None:
        """So many more are done."""
        self._progress.advance(self._task, num_units)
        self._done += num_units
        if self._lines:
            self._lines.show(self._done)


def _format(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
