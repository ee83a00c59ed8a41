"""What a selection costs and whether it pays, from the metered times of the runs.

Times are device-seconds, summed over resumed attempts. Overall selection cost (the paper's):
C = P(full) / P(subset) x (T_select + T_tune(subset)) / T_tune(full), with P = Rel. / 100 against
the run tuned on the whole pool, so that P(full) = 1. A selector pays only where C < 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prism_tune.tables.relative import mean_and_sd
from prism_tune.tables.rows import Row
from prism_tune.tables.runs import TableRun

StageName = Literal["selection", "training"]


@dataclass(frozen=True)
class FullTuning:
    """T_tune(full): measured on a run, or extrapolated (`how` says from what)."""

    seconds: float
    measured: bool
    how: str


def stage_seconds(run: TableRun, stage: StageName) -> float | None:
    """Device-seconds of a stage over all its attempts; None where it never finished."""
    entries = [entry for entry in run.timings if entry["stage"] == stage]
    if not any(entry["finished"] for entry in entries):
        return None
    return sum(float(entry["device_seconds"]) for entry in entries)


def row_seconds(row: Row, stage: StageName) -> float | None:
    """Mean over the row's runs; None where one of them was not metered."""
    values = [stage_seconds(run, stage) for run in row.runs]
    present = [value for value in values if value is not None]
    return mean_and_sd(present)[0] if len(present) == len(values) else None


def spans_devices(rows: Sequence[Row]) -> bool:
    """Whether the rows were metered on different devices, whose seconds do not compare."""
    return len(device_names(rows)) > 1


def device_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """The devices selection and tuning ran on."""
    names = {
        str(entry["device"])
        for row in rows
        for run in row.runs
        for entry in run.timings
        if entry["stage"] in ("selection", "training")
    }
    return tuple(sorted(names))


def find_full(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row tuned on the whole pool with the same model and tuning as `row`."""
    own = row.first.config
    return next(
        (
            other
            for other in rows
            if other.first.is_full
            and other.first.config.model == own.model
            and other.first.config.training.tuning == own.training.tuning
        ),
        None,
    )


def full_tuning(row: Row, rows: Sequence[Row]) -> FullTuning | None:
    """T_tune(full) for a subset's row; None where neither measured nor derivable."""
    full = find_full(row, rows)
    measured = row_seconds(full, "training") if full and not spans_devices((row, full)) else None
    if full is not None and measured is not None:
        return FullTuning(measured, True, f"measured on {full.names}")
    subset_seconds = row_seconds(row, "training")
    manifest = row.first.manifest
    if subset_seconds is None or manifest is None:
        return None
    return _extrapolate(subset_seconds, row.first)


def _extrapolate(subset_seconds: float, run: TableRun) -> FullTuning:
    """Seconds per record x size of the pool; where steps are fixed, the same steps."""
    assert run.manifest is not None
    num_pool, num_selected = int(run.manifest["num_pool"]), int(run.manifest["num_selected"])
    if int(run.config.training.hf.get("max_steps", -1)) > 0:
        return FullTuning(subset_seconds, False, "extrapolated: the same max_steps")
    seconds = subset_seconds / num_selected * num_pool
    return FullTuning(
        seconds, False, f"extrapolated: seconds per record x {num_pool:,} records of the pool"
    )


def selection_cost(
    performance: float, select_seconds: float, tune_seconds: float, full_seconds: float
) -> float:
    """C; `performance` is P(subset) / P(full), 1.017 for the paper's PRISM."""
    return (select_seconds + tune_seconds) / full_seconds / performance


def break_even_seconds(
    performance: float, tune_seconds: float, random_performance: float, random_seconds: float
) -> float:
    """The T_select at which C equals Random's; negative where not even a free selection pays.

    Args:
        performance: P(subset).
        tune_seconds: T_tune(subset).
        random_performance: P(random subset).
        random_seconds: T_select + T_tune of the random subset.
    """
    return performance / random_performance * random_seconds - tune_seconds
