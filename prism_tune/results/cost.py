"""What a selection costs and whether it pays, from the metered times of the runs.

Times are device-seconds, summed over resumed attempts. Overall selection cost (the paper's):
C = P(full) / P(subset) x (T_select + T_tune(subset)) / T_tune(full), with P = Rel. / 100 against
the run tuned on the whole pool, so that P(full) = 1. A selector pays only where C < 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prism_tune.results.relative import mean_and_sd
from prism_tune.results.rows import Row
from prism_tune.results.runs import TableRun
from prism_tune.run.timings import sum_attempts

StageName = Literal["selection", "training"]
_HF_EPOCHS = 3  # of TrainingArguments, where the config names no number


@dataclass(frozen=True)
class FullTuning:
    """T_tune(full): measured on a run, or extrapolated (`how` says from what)."""

    seconds: float
    measured: bool
    how: str


def stage_sum(run: TableRun, stage: StageName, quantity: str = "device_seconds") -> float | None:
    """A quantity of a stage over all its attempts; None where it never finished or lacks it."""
    entries = [entry for entry in run.timings if entry["stage"] == stage]
    if not any(entry["finished"] for entry in entries):
        return None
    return sum_attempts(entries, quantity)


def row_mean(row: Row, stage: StageName, quantity: str = "device_seconds") -> float | None:
    """Mean of `stage_sum` over the row's runs; None where one of them lacks it."""
    values = [stage_sum(run, stage, quantity) for run in row.runs]
    present = [value for value in values if value is not None]
    return mean_and_sd(present)[0] if len(present) == len(values) else None


def row_seconds(row: Row, stage: StageName) -> float | None:
    """Device-seconds, mean over the row's runs; None where one of them was not metered."""
    return row_mean(row, stage)


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
    """The row tuned on the whole of the same pool, with the same model and tuning as `row`."""
    own = row.first.config
    return next(
        (
            other
            for other in rows
            if other.first.is_full
            and other.first.config.model == own.model
            and other.first.config.data.records == own.data.records
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
    return _extrapolate(row)


def _extrapolate(row: Row) -> FullTuning | None:
    """The pool's tokens at the measured tokens/s; where steps are fixed, the same steps.

    Without counts of tokens, by records: a selector that keeps short records then looks cheaper.
    """
    seconds, tokens = row_seconds(row, "training"), row_mean(row, "training", "tokens")
    manifest, hf = row.first.manifest, row.first.config.training.hf
    if seconds is None or manifest is None:
        return None
    if int(hf.get("max_steps", -1)) > 0:
        return FullTuning(seconds, False, "extrapolated: the same max_steps")
    num_pool_tokens = manifest.get("num_tokens", {}).get("pool")
    if tokens and num_pool_tokens:
        epochs = float(hf.get("num_train_epochs", _HF_EPOCHS))
        rate = tokens / seconds
        how = f"{num_pool_tokens:,} tokens of the pool at the measured {rate:,.0f} tokens/s"
        return FullTuning(epochs * num_pool_tokens / rate, False, f"extrapolated: {how}")
    num_pool, num_selected = int(manifest["num_pool"]), int(manifest["num_selected"])
    how = f"seconds per record x {num_pool:,} records of the pool"
    return FullTuning(seconds / num_selected * num_pool, False, f"extrapolated: {how}")


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
