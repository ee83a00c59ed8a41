"""A grid of runs as Markdown: a table per budget, sources, overlap, and notes on what is what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_tune.config.budget_words import budget_key
from prism_tune.results.render import MISSING, Cell, Table, format_budget, number_cell, render_grid

Row = Mapping[str, Any]


def render_comparison(found: Mapping[str, Any], command: str) -> str:
    """All tables: who was kept, then how they did, and what that says.

    Args:
        found: what `build_grid` returned.
        command: that goes on with the comparison.
    """
    parts = [f"# Comparison `{found['name']}`"]
    for budget in _list_budgets(found):
        rows = [row for row in found["rows"] if row["budget"] == budget]
        parts += [f"## {_budget(budget)}", "Source composition of the subsets, per cent:"]
        parts += [_render_sources(rows), "Overlap of the subsets (Jaccard, same seed):"]
        parts += [_render_overlap(found["overlap"][budget_key(budget)])]
    return "\n\n".join([*parts, render_results(found, command)])


def render_results(found: Mapping[str, Any], command: str) -> str:
    """How the selectors did at each budget, verdicts, and notes on what is what.

    Args:
        found: what `build_grid` returned.
        command: that goes on with the comparison.
    """
    whole = [row for row in found["rows"] if row["budget"] is None]
    parts = []
    for budget in _list_budgets(found) or [None]:
        rows = [row for row in found["rows"] if row["budget"] == budget]
        shown = rows if budget is None else [*whole, *rows]
        parts += [f"## {_budget(budget)}", _render_rows(shown, found["baseline"])]
        parts += _render_planted(rows)
    return "\n\n".join([*parts, *_render_verdicts(found), _render_notes(found, command)]) + "\n"


def _list_budgets(found: Mapping[str, Any]) -> list[Any]:
    return list(dict.fromkeys(r["budget"] for r in found["rows"] if r["budget"] is not None))


def _render_rows(rows: Sequence[Row], baseline: str) -> str:
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    shown = metrics if len(metrics) > 1 else []
    of_rel = any(row["relative"] for row in rows)
    compared = ["Rel. (95 %)", f"Rel. - {baseline} (95 %)"] if of_rel else []
    compared = compared or [f"P - {baseline} (95 %)"]
    headings = [name.removesuffix(".accuracy") for name in shown]
    header = ["Selector", "Seeds", *headings, "P", *compared, "T_select", "T_tune", "C"]
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
                *(f"{row['metrics'][name]:.1f}" for name in shown),
                number_cell(row["performance"]["mean"], sd=row["performance"]["sd"]).text,
                *(_relative(row) if of_rel else [_interval(row["difference"])]),
                _seconds(row["select_seconds"]),
                _seconds(row["tune_seconds"]),
                number_cell(row["cost"], digits=2).text,
            ]
        )
    return _table(header, lines)


def _relative(row: Row) -> list[str]:
    """Rel., and its difference to the baseline's, each with its interval."""
    found, against = row["relative"], row["relative_difference"]
    if found is None or found["value"] is None:
        return [MISSING, MISSING]
    value, interval = f"{found['value']:.1f}", found["interval"]
    if row["budget"] is not None and interval is not None:
        value += f" ({interval[0]:.1f} to {interval[1]:.1f})"
    if against is None:
        return [value, "-"]
    if against["seeds"]["low"] is not None or against["questions"] is None:
        return [value, _interval(against["seeds"])]
    low, high = against["questions"]
    return [value, f"{against['value']:+.1f} ({low:+.1f} to {high:+.1f})"]


def _render_verdicts(found: Mapping[str, Any]) -> list[str]:
    told = [f"- {verdict}" for verdict in found["verdicts"]]
    return ["Does it help?", "\n".join(told)] if told else []


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
    devices = ", ".join(found["devices"]) or "no device yet"
    several = ", P / P(whole pool) as the mean over the metrics" if is_mean else ""
    notes = [
        *found["notes"],
        f"P: {'mean of ' if is_mean else ''}{metrics}; mean ± standard deviation over seeds.",
        *_say_intervals(found),
        *_say_detectable(found),
        "T: device-seconds, mean over seeds; T_select has the extraction of the features, which "
        "are computed once and charged to every cell that reads them. "
        f"{processes} cell{'s' if processes > 1 else ''} at a time on {devices}.",
        f"C = P(whole pool) / P x (T_select + T_tune) / T_tune(whole pool){several}; n/a without a "
        "cell on the whole pool metered on the same device. Below 1 the selection pays.",
        f"{found['num_finished']} of {found['num_cells']} cells are finished. "
        f"`{command}` goes on with the others, and computes none twice.",
    ]
    failed = [
        f"failed: {row['selector']}, {_budget(row['budget'])}, seed {seed}: {error}"
        for row in found["rows"]
        for seed, error in row["failures"].items()
    ]
    return "\n".join(
        f"- {note}" for note in [*notes, *_say_unpaired(found), *_say_constant(found), *failed]
    )


def _say_intervals(found: Mapping[str, Any]) -> list[str]:
    """What Rel. is, and over what the intervals are taken."""
    many = "Many rows are compared: one in twenty intervals misses 0 where nothing differs."
    if not any(row["relative"] for row in found["rows"]):
        return [
            f"P - {found['baseline']}: mean over the seeds that both have, with the 95 % interval "
            f"of Student's t over these differences (n/a with one seed). {many}"
        ]
    said = [
        "Rel. = 100 x mean over the metrics of score / the whole pool's score, whose mean is taken "
        "as it is."
    ]
    rows = [row for row in found["rows"] if row["budget"] is not None and _has_rel(row)]
    overs = {row["relative"]["over"] for row in rows}
    if "seeds" in overs:
        said[0] += (
            " 95 % intervals over seeds (Student's t, differences seed by seed): they hold the "
            f"noise of tuning and of drawing subsets, not that of drawing questions. {many}"
        )
    few = "with one seed"
    if any(len(row["seeds_finished"]) > 1 and row["relative"]["over"] != "seeds" for row in rows):
        few += ", or several that do not differ"
    if any(_lacks_interval(row) for row in rows):
        said[0] += f" Without an interval (n/a) {_say_lacking(found, few)}."
    if "questions" in overs:
        said[0] += (
            f" {few.capitalize()}, 95 % intervals over questions (paired bootstrap, 2,000 "
            f"resamples){_say_resampled(found)}: they do not hold the noise of tuning, which takes "
            "more seeds to be seen (compare.seeds=[0,1,2])."
        )
    return said


def _has_rel(row: Row) -> bool:
    return row["relative"] is not None and row["relative"]["value"] is not None


def _lacks_interval(row: Row) -> bool:
    """Of Rel. or of the difference, but for what `_say_constant` tells of."""
    against = row["relative_difference"]
    if row["relative"]["interval"] is None or against is None:
        return row["relative"]["interval"] is None
    seeds = against["seeds"]
    return against["questions"] is None and seeds["low"] is None and not seeds["is_constant"]


def _say_lacking(found: Mapping[str, Any], few: str) -> str:
    if not found["resampled"]:
        return f"{few}: none of Rel.'s metrics is a mean over questions, to be resampled"
    return (
        "where a resample of the questions leaves nothing to divide by: a metric on which the "
        "whole pool scores hardly above 0; or where all resamples come out alike"
    )


def _say_resampled(found: Mapping[str, Any]) -> str:
    """What Rel. is over in the intervals over questions, where these are not of all its metrics."""
    if len(found["resampled"]) + len(found["skipped"]) == len(found["metrics"]):
        return ""
    return f", of Rel. over {', '.join(f'`{name}`' for name in found['resampled'])} only"


def _say_detectable(found: Mapping[str, Any]) -> list[str]:
    """The smallest difference that these seeds find."""
    where = {
        id(one): f"at {_budget(one['budget']).lower()} ({one['num_seeds']} seeds)"
        for one in found["detectable"]
    }
    known = [one for one in found["detectable"] if one["points"] is not None]
    said = [f"{one['points']:.1f} points of {one['of']} {where.pop(id(one))}" for one in known]
    told = []
    if said:
        judge = " by the seeds' interval" if found["resampled"] else ""
        told.append(
            f"What these seeds can detect: a true difference to {found['baseline']} of "
            f"{', '.join(said)} is found{judge} four times in five, a smaller one more rarely."
        )
    if where:
        told.append(
            f"What these seeds can detect: n/a {', '.join(where.values())}: the differences to "
            f"{found['baseline']} are the same under each, which says nothing of their noise."
        )
    return told


def _say_constant(found: Mapping[str, Any]) -> list[str]:
    """The differences that seeds cannot judge though there are enough."""
    rows = [row for row in found["rows"] if (_over_seeds(row) or {}).get("is_constant")]
    listed = ", ".join(f"{row['selector']} ({_budget(row['budget'])})" for row in rows)
    if not rows:
        return []
    by_questions = any((row["relative_difference"] or {}).get("questions") for row in rows)
    said = "; the interval in their place is over questions" + _say_resampled(found)
    over = said if by_questions else ""
    return [f"The same difference under every seed, which seeds cannot judge: {listed}{over}."]


def _over_seeds(row: Row) -> Mapping[str, Any] | None:
    """The difference that is shown: of Rel. where there is one."""
    against = row["relative_difference"]
    return against["seeds"] if against else row["difference"]


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
    if difference is None:
        return "-"
    if difference["test"] is None and not (difference["num_seeds"] or difference["is_constant"]):
        return "-"
    if difference["test"] is None:
        return f"{difference['mean']:+.1f} (n/a)"
    return f"{difference['mean']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def _seconds(seconds: float | None) -> str:
    return MISSING if seconds is None else f"{seconds:.1f} s"
