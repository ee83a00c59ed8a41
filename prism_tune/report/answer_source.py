"""What the report has to be given of finished evaluations: the door hands it in.

`evaluation.finished_answers` is one. The report meets stages by their files alone; only evaluation
can read annotations in their official layouts.
"""

from __future__ import annotations

from typing import Any, Protocol

from prism_tune.run.folder import RunDir
from prism_tune.schema import Answered

Row = dict[str, Any]


class AnswerSource(Protocol):
    """Reads what a run was asked and answered; all raise UserError of broken files."""

    def list_finished(self, run: RunDir) -> list[str]:
        """The benchmarks that have finished."""

    def read_benchmark(self, run: RunDir, name: str) -> Answered:
        """One benchmark's rows; none, and a note, where it keeps no answers."""

    def pair_rows(self, name: str, before: Answered, now: Answered) -> tuple[list[Row], list[str]]:
        """The rows of `now` with those of `before` beside them, `before`'s own behind; notes."""
