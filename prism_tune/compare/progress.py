"""What the user sees while cells are at work: which verb each is in, how far, how each ended."""

from __future__ import annotations

import logging
import re
import time

from prism_tune.compare.cells import Cell

logger = logging.getLogger(__name__)

_SECONDS = 15.0
_SECONDS_PER_CELL = 1.0
"""A grid of hours says less often where it stands than one of minutes."""
_STEPS = re.compile(rb"(\d+)/(\d+) \[|\bstep:\s+(\d+)\s+of\s+(\d+)")
"""Of training's bar, or of its lines where no terminal draws one."""
_TAIL_BYTES = 2000


class Progress:
    """Writes down and says how each cell ended, and in between what is at work."""

    def __init__(self, num_cells: int) -> None:
        self._num_cells = num_cells
        self._num_done = 0
        self._begin = time.perf_counter()
        self._at_work: dict[Cell, str] = {}
        self.pause_seconds = max(_SECONDS, _SECONDS_PER_CELL * num_cells)

    def begin(self, cell: Cell, verb: str) -> None:
        """A cell goes on to this verb."""
        self._at_work[cell] = verb

    def tell(self) -> None:
        """Say what is at work."""
        said = [self._describe(cell, verb) for cell, verb in list(self._at_work.items())]
        elapsed = time.perf_counter() - self._begin
        logger.info(
            "compare: %d/%d after %d:%02d min; at work: %s",
            self._num_done,
            self._num_cells,
            *divmod(round(elapsed), 60),
            ", ".join(said) or "nothing yet",
        )

    def report(self, cell: Cell, error: str | None) -> None:
        """A cell has ended."""
        self._at_work.pop(cell, None)
        self._num_done += 1
        cell.finish(error)
        elapsed = time.perf_counter() - self._begin
        logger.info(
            "compare: %d/%d %s %s (%.0f s each, %.0f min to go)%s",
            self._num_done,
            self._num_cells,
            cell.config.name,
            "finished" if error is None else "failed",
            elapsed / self._num_done,
            elapsed / self._num_done * (self._num_cells - self._num_done) / 60,
            "" if error is None else f": {error} ({cell.output})",
        )

    def _describe(self, cell: Cell, verb: str) -> str:
        """`random-0.2-seed0 train 12/30`: the steps are those that training prints."""
        steps = None
        if verb == "train" and cell.output.exists():
            with cell.output.open("rb") as file:
                file.seek(max(0, cell.output.stat().st_size - _TAIL_BYTES))
                found = _STEPS.findall(file.read())
            steps = b"/".join(filter(None, found[-1])).decode() if found else None
        return " ".join(part for part in (cell.config.name, verb, steps) if part)
