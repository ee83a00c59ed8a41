"""One `Table` in, its text as markdown, LaTeX, CSV or JSON out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

OutputFormat = Literal["md", "latex", "csv", "json"]
SUFFIXES: dict[OutputFormat, str] = {"md": ".md", "latex": ".tex", "csv": ".csv", "json": ".json"}
MISSING = "n/a"
"""A cell that could have a value and has none."""
INAPPLICABLE = "-"
"""A cell that cannot have a value, for example the tuning time of an untuned model."""


@dataclass(frozen=True)
class Cell:
    """What is printed; for CSV and JSON the unrounded numbers and run names behind it."""

    text: str
    value: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A rectangular table with footer notes. The first `num_text_columns` are left-aligned.

    `verdicts` are the notes on single rows, by the text of their first cell; they stand first.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    num_text_columns: int = 2
    verdicts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.header) for row in self.rows)

    @property
    def footer(self) -> tuple[str, ...]:
        """Verdicts and notes."""
        return (*self.verdicts.values(), *self.notes)


def number_cell(
    value: float | None, *, digits: int = 1, sd: float | None = None, sign: bool = False
) -> Cell:
    """A number, with ± its standard deviation where there is one; None is "n/a"."""
    if value is None:
        return Cell(MISSING)
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if sd is not None:
        text += f" ± {sd:.{digits}f}"
    return Cell(text, value, sd)


def duration_cell(seconds: float | None) -> Cell:
    """Seconds below a minute, h:mm:ss above."""
    return Cell(MISSING if seconds is None else format_seconds(seconds), seconds)


def format_seconds(seconds: float) -> str:
    """`12.3 s`, `0:02:05`, `-1:00:00`."""
    if abs(seconds) < 59.95:
        return f"{seconds:.1f} s"
    whole = round(abs(seconds))
    sign = "-" if seconds < 0 else ""
    return f"{sign}{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def format_budget(budget: float | int) -> str:
    """`1,000 records`, `30 %`."""
    return f"{budget:,} records" if isinstance(budget, int) else f"{100 * budget:g} %"


def render(table: Table, output_format: OutputFormat) -> str:
    """The table as text, ending with a newline."""
    renderers = {
        "md": _render_markdown,
        "latex": _render_latex,
        "csv": _render_csv,
        "json": _render_json,
    }
    return renderers[output_format](table)


def _render_markdown(table: Table) -> str:
    notes = [f"- {note}" for note in table.footer]
    parts = [f"### {table.title}", "", render_grid(table)]
    return "\n".join([*parts, *(["", *notes] if notes else []), ""])


def render_grid(table: Table) -> str:
    """Header and rows alone, as padded pipes: markdown that also reads well in a terminal."""
    lines = [list(table.header), *([cell.text for cell in row] for row in table.rows)]
    escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
    widths = [max(3, *(len(line[k]) for line in escaped)) for k in range(len(table.header))]
    rules = [_markdown_rule(k, width, table) for k, width in enumerate(widths)]
    head, *body = [_markdown_line(line, widths, table.num_text_columns) for line in escaped]
    return "\n".join([head, f"|{'|'.join(rules)}|", *body])


def _markdown_rule(index: int, width: int, table: Table) -> str:
    return "-" * (width + 2) if index < table.num_text_columns else "-" * (width + 1) + ":"


def _markdown_line(texts: Sequence[str], widths: Sequence[int], num_text_columns: int) -> str:
    padded = [
        text.ljust(width) if k < num_text_columns else text.rjust(width)
        for k, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "Δ": r"$\Delta$",
})  # fmt: skip


def _render_latex(table: Table) -> str:
    """A booktabs table; the notes stand below it in small print."""
    num_numbers = len(table.header) - table.num_text_columns
    body = [_latex_line([cell.text for cell in row]) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{table.title.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{{'l' * table.num_text_columns}{'r' * num_numbers}}}",
            r"\toprule",
            _latex_line(table.header),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {note.translate(_LATEX)}" for note in table.footer),
            r"\end{table}",
            "",
        ]
    )


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(text.translate(_LATEX) for text in texts) + r" \\"


def _render_csv(table: Table) -> str:
    """Unrounded values; sd, low and high get columns of their own where a row has them."""
    from prism_tune.run.csv_text import write_csv

    extras = [
        (k, name)
        for k in range(len(table.header))
        for name in ("sd", "low", "high")
        if any(getattr(row[k], name) is not None for row in table.rows)
    ]
    head = [*table.header, *(f"{table.header[k]} {name}" for k, name in extras)]
    rows = [
        [*map(_csv_value, row), *(getattr(row[k], name) for k, name in extras)]
        for row in table.rows
    ]
    return write_csv([head, *rows])


def _csv_value(cell: Cell) -> float | str:
    if cell.names:
        return ", ".join(cell.names)
    return cell.text if cell.value is None else cell.value


def _render_json(table: Table) -> str:
    """Title, notes, verdicts, and one object a row: heading -> text and the numbers behind it."""
    rows = [
        {name: _cell_fields(cell) for name, cell in zip(table.header, row, strict=True)}
        for row in table.rows
    ]
    content = {
        "title": table.title,
        "rows": rows,
        "notes": table.footer,
        "verdicts": table.verdicts,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _cell_fields(cell: Cell) -> dict[str, Any]:
    behind = {"value": cell.value, "sd": cell.sd, "low": cell.low, "high": cell.high}
    fields = {"text": cell.text, **{k: v for k, v in behind.items() if v is not None}}
    return {**fields, "names": cell.names} if cell.names else fields
