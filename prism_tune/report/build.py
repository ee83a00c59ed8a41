"""`prism-tune report`: run folders in, one folder with a page that opens from disk out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.report.answer_source import AnswerSource
from prism_tune.report.page import write_page
from prism_tune.report.section import PageFolder, Section
from prism_tune.report.sections import (
    answers,
    gallery,
    geometry,
    other_runs,
    overview,
    scores,
    training,
)
from prism_tune.report.verdict import compare_runs
from prism_tune.results.runs import FinishedRun, open_runs
from prism_tune.run.folder import RunDir, remove_left_over
from prism_tune.run.writer import only_writer


def build_report(
    runs: Sequence[RunDir], output: Path | None = None, source: AnswerSource | None = None
) -> Path:
    """Write the report of the first run; the others stand beside it in the comparison.

    Args:
        runs: at least one.
        output: the folder; None: `report/` in the first run. Replaced as a whole, when it is done.
        source: what reads the answers of finished evaluations; None: a page without them.

    Returns:
        The page.

    Raises:
        UserError: not a run folder, unreadable files, an output folder that is no report, or one
            that somebody else is writing or that this process was started in.
    """
    run, *others = open_runs([of_run.root for of_run in runs])
    target = output or run.run.report
    _check_target(target)
    with only_writer(RunDir(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(target, "-")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            page = PageFolder(Path(scratch) / "new", home=target)
            page.root.mkdir()
            write_page(run.name, _build_sections(run, others, page, source), page)
            if target.exists():
                target.rename(Path(scratch) / "old")
            page.root.rename(target)
    return target / "index.html"


def _build_sections(
    run: FinishedRun,
    others: Sequence[FinishedRun],
    page: PageFolder,
    source: AnswerSource | None,
) -> list[Section]:
    """Top to bottom."""
    table = compare_runs([run, *others])
    asked = [answers.build([run, *others], source, page)] if source else []
    return [
        overview.build(run, table),
        geometry.build(run, page),
        scores.build(run, page),
        gallery.build(run, page),
        other_runs.build([run, *others], table, page),
        training.build(run, page),
        *asked,
    ]


def _check_target(target: Path) -> None:
    """Only what looks like a report is ever replaced, and not below one who stands in it."""
    is_empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not is_empty and not (target / "assets" / "report.js").exists():
        raise UserError(f"{target}: exists and is not a report; name another folder with --output")
    if target.is_dir() and target.samefile("."):
        raise UserError(
            f"{target}: this command was started in it, and it is replaced as a whole; start from "
            "another folder, or name another with --output"
        )
