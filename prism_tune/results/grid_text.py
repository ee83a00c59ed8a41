"""A grid of runs as Markdown: a table per budget, sources, overlap, and notes on what is what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_tune.results.render import MISSING, Cell, Table, format_budget, number_cell, render_grid

Row = Mapping[str, Any]


def render_comparison(found: Mapping[str, Any], command: str) -> str:
    """All tables.

    Args:
        found: what `build_grid` returned.
        command: that goes on with the comparison.
    """
    parts = [f"# Comparison `{found['name']}`"]
    budgets = list(dict.fromkeys(row["budget"] for row in found["rows"]))
    for budget in budgets:
        rows = [row for row in found["rows"] if row["budget"] == budget]
        parts += [f"## {_budget(budget)}", _render_rows(rows, found["baseline"])]
        if budget is not None:
            parts += _render_planted(rows)
            parts += ["Source composition of the subsets, per cent:", _render_sources(rows)]
            parts += ["Overlap of the subsets (Jaccard, same seed):"]
            parts += [_render_overlap(found["overlap"][f"{budget:g}"])]
    return "\n\n".join([*parts, _render_notes(found, command)]) + "\n"


def _render_rows(rows: Sequence[Row], baseline: str) -> str:
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    shown = metrics if len(metrics) > 1 else []
    header = ["Selector", "Seeds", "P", f"P - {baseline} (95 %)", *shown, "T_select", "T_tune", "C"]
    lines = []
    for row in rows:
        if row["performance"] is None:
            state = "failed" if row["failures"] else "not run"
            lines.append([row["selector"], "0", state, *[MISSING] * (len(header) - 3)])
            continue
        lines.append(
            [
                row["selector"],
                _seeds(row),
                number_cell(row["performance"]["mean"], sd=row["performance"]["sd"]).text,
                _interval(row["difference"]),
                *(f"{row['metrics'][name]:.1f}" for name in shown),
                _seconds(row["select_seconds"]),
                _seconds(row["tune_seconds"]),
                number_cell(row["cost"], digits=2).text,
            ]
        )
    return _table(header, lines)


def _render_planted(rows: Sequence[Row]) -> list[str]:
    """Nothing where no redundancy was planted."""
    told = [row for row in rows if row.get("removed")]
    if not told:
        return []
    kinds = list(told[0]["removed"])
    header = ["Selector", *(f"{kind} removed" for kind in kinds), "repeats in the subset"]
    lines = [
        [
            row["selector"],
            *(f"{100 * row['removed'][kind]:.1f}" for kind in kinds),
            f"{100 * row['repeated']:.1f}",
        ]
        for row in told
    ]
    return ["Planted redundancy, per cent:", _table(header, lines)]


def _render_sources(rows: Sequence[Row]) -> str:
    told = [row for row in rows if row["sources"]]
    names = list(told[0]["sources"]) if told else []
    lines = [
        [row["selector"], *(f"{100 * row['sources'][name]:.1f}" for name in names)] for row in told
    ]
    return _table(["Selector", *names], lines)


def _render_overlap(overlap: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(overlap)
    lines = [[a, *(number_cell(overlap[a][b], digits=2).text for b in names)] for a in names]
    return _table(["", *names], lines)


def _render_notes(found: Mapping[str, Any], command: str) -> str:
    metrics = ", ".join(f"`{name}`" for name in found["metrics"])
    processes = found["num_processes"]
    is_mean = len(found["metrics"]) > 1
    several = ", P / P(whole pool) as the mean over the metrics" if is_mean else ""
    notes = [
        f"P: {'mean of ' if is_mean else ''}{metrics}; mean ± standard deviation over seeds.",
        f"P - {found['baseline']}: mean over the seeds that both have, with the 95 % interval of "
        "Student's t over these differences (n/a with one seed). Many rows are compared: one in "
        "twenty intervals misses 0 where nothing differs.",
        "T: device-seconds, mean over seeds; T_select has the extraction of the features, which "
        "are computed once and charged to every cell that reads them. "
        f"{processes} cell{'s' if processes > 1 else ''} at a time on {_devices(found)}.",
        f"C = P(whole pool) / P x (T_select + T_tune) / T_tune(whole pool){several}; n/a without a "
        "cell on the whole pool. Below 1 the selection pays.",
        f"{found['num_finished']} of {found['num_cells']} cells are finished. "
        f"`{command}` goes on with the others, and computes none twice.",
    ]
    failed = [
        f"failed: {row['selector']}, {_budget(row['budget'])}, seed {seed}: {error}"
        for row in found["rows"]
        for seed, error in row["failures"].items()
    ]
    return "\n".join(f"- {note}" for note in [*notes, *_say_unpaired(found), *failed])


def _say_unpaired(found: Mapping[str, Any]) -> list[str]:
    """The differences that are not Student's t over seeds that both have."""
    rows = [row for row in found["rows"] if (row["difference"] or {}).get("test") == "welch"]
    listed = ", ".join(f"{row['selector']} ({_budget(row['budget'])})" for row in rows)
    return [f"Unpaired, Welch's t, for want of two seeds that both have: {listed}."] if rows else []


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = tuple(tuple(Cell(text) for text in line) for line in lines)
    return render_grid(Table("", tuple(header), rows, num_text_columns=1))


def _budget(budget: float | int | None) -> str:
    return "Whole pool" if budget is None else f"Budget {format_budget(budget)}"


def _seeds(row: Row) -> str:
    failed = len(row["failures"])
    return f"{len(row['seeds_finished'])}" + (f" ({failed} failed)" if failed else "")


def _interval(difference: Mapping[str, Any] | None) -> str:
    if difference is None or (difference["test"] is None and not difference["num_seeds"]):
        return "-"
    if difference["test"] is None:
        return f"{difference['mean']:+.1f} (n/a)"
    return f"{difference['mean']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def _seconds(seconds: float | None) -> str:
    return MISSING if seconds is None else f"{seconds:.1f} s"


def _devices(found: Mapping[str, Any]) -> str:
    return ", ".join(found["devices"]) or "no device yet"
