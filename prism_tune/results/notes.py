"""The footer of a table of scores: what the numbers are, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prism_tune.intervals import Difference
from prism_tune.results.comparison import Comparison, Finding, RelDifference, Verdict
from prism_tune.results.rows import Row, find_full, is_tuned_as_long, say_lacking
from prism_tune.schema import BenchmarkResult

_SETTINGS = (
    "backend",
    "template",
    "image_aspect_ratio",
    "image_library",
    "dtype",
    "max_new_tokens",
    "batch_size",
    "device",
    "evaluator",
)
"""Provenance that may move a few answers without making scores incomparable: said, not refused."""
_VERBS: Mapping[Finding, str] = {
    "ahead": "is ahead of",
    "behind": "is behind",
    "beat": "beat",
    "lost": "lost to",
}


def describe_columns(comparison: Comparison, rule: str) -> str:
    """The column set, why it, and the definition of Rel."""
    scored = ", ".join(column.label for column in comparison.columns.scored)
    scores = {column.benchmark for column in comparison.columns.scored}
    others = [column for column in comparison.columns.columns if column.control]
    controls = [column.label for column in others if column.benchmark in scores]
    own = [column.label for column in others if column.benchmark not in scores]
    beside = f"; controls, never counted: {', '.join(controls)}" if controls else ""
    beside += f"; of your own, beside the set and not counted: {', '.join(own)}" if own else ""
    return (
        f"Columns `{comparison.columns.name}` ({rule}). Rel. = 100 x mean over {scored} of score / "
        f"baseline's score{beside}."
    )


def measurement_notes(comparison: Comparison) -> list[str]:
    """Profile, judge, number of questions, missing answers and results, differing settings."""
    notes = []
    for benchmark in comparison.columns.benchmarks:
        runs = [run for row in comparison.rows for run in row.runs]
        found = {run.name: run.results[benchmark] for run in runs if benchmark in run.results}
        if not found:
            notes.append(f"{benchmark}: evaluated in none of the runs, n/a.")
            continue
        first = next(iter(found.values()))
        judge = f", judge {first.provenance['judge']}" if first.provenance.get("judge") else ""
        notes.append(
            f"{benchmark}: {first.num_examples:,} questions, profile {first.profile}{judge}."
        )
        notes += _other_notes(comparison, benchmark, found)
        without = [run.name for run in runs if run.name not in found]
        if without:
            notes.append(f"{benchmark}: no results in {', '.join(without)}, n/a.")
        missing = [f"{name} {r.num_missing:,}" for name, r in found.items() if r.num_missing]
        if missing:
            notes.append(f"{benchmark}: answers missing, counted as wrong: {', '.join(missing)}.")
        notes += _setting_notes(benchmark, {name: r.provenance for name, r in found.items()})
    return notes


def _other_notes(
    comparison: Comparison, benchmark: str, found: Mapping[str, BenchmarkResult]
) -> list[str]:
    """What another rule gives, where a column's own is not that of published numbers."""
    notes = []
    for column in comparison.columns.columns:
        if column.benchmark != benchmark or column.other is None:
            continue
        metric, rule = column.other
        values = [
            f"{name} {r.metrics[metric]:.1f}" for name, r in found.items() if metric in r.metrics
        ]
        if values:
            notes.append(f"{benchmark}: `{metric}`, {rule}: {', '.join(values)}.")
    return notes


def _setting_notes(benchmark: str, provenance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = []
    for key in _SETTINGS:
        values = {name: of_run.get(key) for name, of_run in provenance.items()}
        if len({str(value) for value in values.values()}) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in values.items())
            notes.append(f"{benchmark}: {key} differs, which can move a few answers: {listed}.")
    return notes


def relative_notes(comparison: Comparison) -> list[str]:
    """Skipped columns, and Rel. leaving one benchmark out."""
    notes, skipped = [], {}
    for row in comparison.rows:
        baseline = comparison.baseline_of(row)
        if baseline is row:
            continue
        if baseline is None:
            skipped[row.label] = ""
            continue
        skipped[row.label] = ", ".join(comparison.relative(row, baseline).skipped)
        left_out = comparison.leave_one_out(row, baseline)
        if left_out:
            listed = ", ".join(f"{name} {value:.1f}" for name, value in left_out.items())
            notes.append(f"Rel. of {row.label} without one benchmark: {listed}.")
    return [
        *(
            f"Rel. of {rows} skips {labels} (n/a on one side, or 0 in the baseline)."
            for labels, rows in gather_rows(skipped).items()
        ),
        *notes,
    ]


def gather_rows(said: Mapping[str, str]) -> dict[str, str]:
    """What is said of rows -> the rows it holds of, listed, or "all rows".

    Args:
        said: by label; of a row with an empty text there is nothing to say.
    """
    holders: dict[str, list[str]] = {}
    for label, text in said.items():
        holders.setdefault(text, []).append(label)
    listed = {text: ", ".join(labels) for text, labels in holders.items() if text}
    holds_of_all = len(said) > 1 and len(holders) == 1
    return dict.fromkeys(listed, "all rows") if holds_of_all else listed


def spread_notes(comparison: Comparison) -> list[str]:
    """What ± and the interval are."""
    notes = []
    if any(len(row.runs) > 1 for row in comparison.rows):
        notes.append(
            "±: standard deviation over the seeds of a row, whose runs differ in nothing else."
        )
    if comparison.resampled and len(comparison.rows) > 1:
        notes.append(
            "95 % CI: paired bootstrap over questions (2,000 resamples) of Rel. over "
            f"{', '.join(comparison.resampled)}; it does not contain the noise of tuning; "
            "n/a where a resample leaves nothing to divide by, or all resamples come out alike."
        )
    return notes


def stale_notes(rows: Sequence[Row]) -> list[str]:
    """Runs of which a stage was repeated, and those behind it were not."""
    return [
        f"STALE {run.name}: {found}; run that stage again."
        for row in rows
        for run in row.runs
        for found in run.stale
    ]


def unranked_notes(rows: Sequence[Row]) -> list[str]:
    """Runs whose selector could not rank all records."""
    said: dict[str, str] = {}
    for row in rows:
        told = {run.name: run.unranked for run in row.runs}
        is_one = len(set(told.values())) == 1
        said |= {row.names: row.first.unranked} if is_one else told
    return [f"UNRANKED {runs}: {text}." for text, runs in gather_rows(said).items()]


def batch_notes(rows: Sequence[Row]) -> list[str]:
    """Rows whose steps have other numbers of records: of other numbers of devices, for instance."""
    runs = [run for row in rows for run in row.runs if run.global_batch is not None]
    by_size = gather_rows({run.name: f"{run.global_batch:,}" for run in runs})
    if len(by_size) < 2:
        return []
    listed = "; ".join(f"{size} in {names}" for size, names in by_size.items())
    return [f"BATCH: not tuned in steps of one size, which moves scores: {listed}."]


def left_out_notes(comparison: Comparison) -> list[str]:
    """Records that runs could not use, or were told not to, and why."""
    said = {
        run.name: "; ".join(
            f"{stage} without {_list_counts(counts)}"
            for stage, counts in run.left_out.items()
            if counts
        )
        for row in comparison.rows
        for run in row.runs
        if not run.is_untuned
    }
    return [f"Left out in {runs}: {text}." for text, runs in gather_rows(said).items()]


def _list_counts(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{reason} {number:,}" for reason, number in counts.items())
    return f"{sum(counts.values()):,} records ({listed})"


def time_notes(comparison: Comparison, has_cost: Callable[[Row], bool]) -> list[str]:
    """What the times and C are, and why C is n/a where it is."""
    notes = [
        "T: device time (wall x devices) metered by the runs, resumed attempts included, "
        "h:mm:ss or seconds.",
    ]
    selected = [row for row in comparison.rows if row.first.is_selected]
    if not selected:
        return notes
    definition = "C = (T_select + T_tune) / T_tune(full) / P, P = Rel. / 100 against the full run"
    lacking = [row for row in selected if not has_cost(row)]
    of_another_length = full_of_another_length(lacking, comparison.rows)
    alike = "model, tuning and epochs (or steps)" if of_another_length else "model and tuning"
    why = (
        f"; n/a for {', '.join(row.label for row in lacking)}: no run of the same {alike} on the "
        "whole pool, evaluated and metered on the same device"
    )
    return [*notes, f"{definition}{why if lacking else ''}."]


def full_of_another_length(selected: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """The labels of the rows whose run on the whole pool took other epochs or steps."""
    fulls = [(row, find_full(row, rows)) for row in selected]
    return [row.label for row, full in fulls if full and not is_tuned_as_long(row, full)]


def say_verdict(verdict: Verdict, comparison: Comparison) -> str:
    """A verdict in plain words."""
    label, other, found = verdict.row.label, verdict.other, verdict.difference
    if other is None:
        lacking = say_lacking(verdict.row, comparison.rows)
        return f"{label}: no Random run of the same {lacking} to judge it by."
    if found is None:
        return f"{label} against {other.label}: {_say_apart(verdict.row, other, comparison)}"
    is_single = len(verdict.row.runs) == len(other.runs) == 1
    evidence = _say_evidence(found, comparison, "each" if is_single else "that both have")
    if verdict.finding in ("unknown", "noise"):
        noise = ", within noise" if verdict.finding == "noise" else ""
        return f"{label} against {other.label}: {found.value:+.1f} points of Rel.{noise} {evidence}"
    points = f"{abs(found.value):.1f} points of Rel."
    return f"{label} {_VERBS[verdict.finding]} {other.label} by {points} {evidence}"


def _say_apart(row: Row, other: Row, comparison: Comparison) -> str:
    """Why two rows have no difference of Rel."""
    baseline = comparison.baseline_of(row)
    assert baseline is not None  # without one there is no verdict to say
    mine, theirs = (comparison.relative(one, baseline).columns for one in (row, other))
    if not mine or not theirs:
        return (
            "no column has a value on both sides and more than 0 in the baseline, so there is no "
            "Rel. and no verdict."
        )
    lacking = {
        row.label: [column for column in theirs if column not in mine],
        other.label: [column for column in mine if column not in theirs],
    }
    listed = [
        f"{label} lacks {', '.join(columns)}" for label, columns in lacking.items() if columns
    ]
    return f"their Rel. are over different columns ({'; '.join(listed)}), so there is no verdict."


def say_test(seeds: Difference) -> str:
    """How a difference over seeds was taken."""
    if seeds.test == "welch":
        return "unpaired, Welch's t"
    return f"paired over {seeds.num_seeds} seeds, Student's t"


def _say_evidence(found: RelDifference, comparison: Comparison, which: str) -> str:
    parts = []
    if found.questions is not None:
        low, high = found.questions
        all_columns = len(comparison.resampled) == len(comparison.columns.scored)
        over = "" if all_columns else f", over {', '.join(comparison.resampled)} only"
        parts.append(f"95 % interval over questions {low:+.1f} to {high:+.1f}{over}")
    if found.seeds.low is not None and found.seeds.high is not None:
        interval = f"{found.seeds.low:+.1f} to {found.seeds.high:+.1f}"
        parts.append(f"95 % interval over seeds {interval}, {say_test(found.seeds)}")
    elif found.seeds.is_constant:
        parts.append("the seeds do not differ, so they cannot judge it")
    else:
        parts.append(f"fewer than two seeds {which}, so the noise of tuning is not measured")
    return f"({'; '.join(parts)})."
