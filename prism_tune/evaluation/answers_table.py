"""Every question of finished evaluations as rows of a table: image, texts, answer, right or wrong.

In: one run folder, or two (before, now). Out: a summary, and parquet or CSV. What was right before
and is wrong now is named. Nothing is written into a run folder.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prism_tune.errors import ConfigError, UserError
from prism_tune.evaluation.finished_answers import (
    ANSWER_COLUMNS,
    BEFORE_COLUMNS,
    BROKEN,
    MENDED,
    Row,
    pair_rows,
    read_run,
)
from prism_tune.run.csv_text import write_csv
from prism_tune.run.folder import RunDir, write_atomic
from prism_tune.schema import Answered

if TYPE_CHECKING:
    from rich.table import Table

QUESTION_COLUMNS = (
    *("benchmark", "question_id", "category", "image"),
    *("question", "prompt", "reference"),
)
_NUM_SHOWN = 3


@dataclass(frozen=True)
class AnswersTable:
    """Rows of all benchmarks, and what has to be said about them.

    Attributes:
        columns: `QUESTION_COLUMNS` and `ANSWER_COLUMNS`; of two runs also `BEFORE_COLUMNS`, the
            first run's, and `change`.
        rows: by column; None where there is no value.
        notes: what is missing, and in which way the two runs differ.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    notes: list[str]


def build_answers(roots: Sequence[Path], benchmarks: Sequence[str] = ()) -> AnswersTable:
    """The answers of one run; of two side by side, what was right before and is wrong now named.

    Args:
        roots: one run folder, or two: before and now.
        benchmarks: only these; all that have answers by default.

    Raises:
        UserError: no run folder, no answers in it, a benchmark it does not have, a broken file; the
            two have no benchmark in common.
    """
    if len(roots) not in (1, 2):
        raise UserError(f"answers: {len(roots)} run folders; expected one, or two to compare")
    if len(roots) == 2 and roots[0].resolve() == roots[1].resolve():
        raise UserError(f"{roots[1]}: given twice; compare it with another run")
    *earlier, now = [read_run(RunDir(root), benchmarks) for root in roots]
    if not earlier:
        rows = [row for asked in now.values() for row in asked.rows]
        notes = [note for asked in now.values() for note in asked.notes]
        return AnswersTable((*QUESTION_COLUMNS, *ANSWER_COLUMNS), rows, notes)
    return _compare(earlier[0], now, roots)


def write_answers(table: AnswersTable, path: Path) -> None:
    """Write the table, replaced atomically: parquet, or CSV whose cells no spreadsheet computes.

    Raises:
        ConfigError: another suffix.
    """
    check_suffix(path)
    if path.suffix == ".csv":
        lines = [[row.get(column) for column in table.columns] for row in table.rows]
        write_atomic(path, write_csv([table.columns, *lines]))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"score": pa.float64(), "right": pa.bool_()}
    fields = [(c, kinds.get(c.removesuffix("_before"), pa.string())) for c in table.columns]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table.rows, schema=pa.schema(fields)), content)
    write_atomic(path, content.getvalue())


def check_suffix(path: Path) -> None:
    """Raise ConfigError unless the name says parquet or CSV."""
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--to: {path}: expected a name that ends with .parquet or .csv")


def print_answers(table: AnswersTable) -> None:
    """Counts by benchmark on the console, the first questions that were lost, and the notes."""
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    console.print(_summarize(table))
    broken = [row for row in table.rows if row.get("change") == BROKEN]
    for row in broken[:_NUM_SHOWN]:
        texts = [_shorten(row[column]) for column in ("question", "answer_before", "answer")]
        shown = f"{BROKEN}: {row['benchmark']} {row['question_id']}: {texts[0]} "
        console.print(f"{shown}{texts[1]} -> {texts[2]}", highlight=False)
    if len(broken) > _NUM_SHOWN:
        console.print(f"... and {len(broken) - _NUM_SHOWN} more", highlight=False)
    for note in table.notes:
        console.print(f"- {note}", highlight=False)


def _summarize(table: AnswersTable) -> Table:
    from rich.table import Table

    flips = (BROKEN, MENDED) if "change" in table.columns else ()
    shown = Table("benchmark")
    for heading in ("questions", "right", "wrong", "partly right", "no answer", *flips):
        shown.add_column(heading, justify="right")
    for name in dict.fromkeys(row["benchmark"] for row in table.rows):
        rows = [row for row in table.rows if row["benchmark"] == name]
        scores = [row["score"] for row in rows if row["score"] is not None]
        counts = [
            len(rows),
            scores.count(1.0),
            scores.count(0.0),
            sum(0 < score < 1 for score in scores),
            sum(row["answer"] is None for row in rows),
            *(sum(row["change"] == flip for row in rows) for flip in flips),
        ]
        shown.add_row(name, *map(str, counts))
    return shown


def _shorten(text: str | None) -> str:
    line = " ".join((text or "").split())
    return repr(line if len(line) <= 60 else f"{line[:60]}...")


def _compare(
    before: Mapping[str, Answered], now: Mapping[str, Answered], roots: Sequence[Path]
) -> AnswersTable:
    """The questions of the second run beside the first's answers; of either alone as well."""
    common = [name for name, asked in now.items() if asked.rows and name in before]
    common = [name for name in common if before[name].rows]
    if not common:
        listed = [
            ", ".join(name for name, item in run.items() if item.rows) for run in (before, now)
        ]
        raise UserError(
            f"{roots[0]} and {roots[1]} have no benchmark in common: {listed[0]}; {listed[1]}"
        )
    rows, notes = [], []
    for name in common:
        paired, found = pair_rows(name, before[name], now[name])
        rows += paired
        notes += found
    for root, own, other in ((roots[0], before, now), (roots[1], now, before)):
        alone = [name for name in own if name not in other]
        notes += [f"{root} alone has {', '.join(alone)}, left out"] if alone else []
    columns = (*QUESTION_COLUMNS, *ANSWER_COLUMNS, *BEFORE_COLUMNS, "change")
    return AnswersTable(columns, rows, list(dict.fromkeys(notes)))
