"""A progress bar: done, total, number per second, time left; on the main process only."""

from __future__ import annotations

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


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class UnitProgress:
    """A bar over `total` units of what `title` says; use as a context manager."""

    def __init__(self, total: int, title: str) -> None:
        self._progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_main() or total == 0,
        )
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> UnitProgress:
        self._progress.start()
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
