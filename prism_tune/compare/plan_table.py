"""A plan as a table to read: what is left to run, in device-hours and disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from prism_tune.compare.cells import Cell, Verb, stages_of
from prism_tune.compare.estimates import Estimate, estimate_run, read_path
from prism_tune.compare.plan import Plan, find_missing
from prism_tune.compare.shapes import PoolSize, Shape, measure_pool, read_shape
from prism_tune.config.sections import Config
from prism_tune.results.render import INAPPLICABLE, MISSING, Table, number_cell
from prism_tune.results.render import Cell as TableCell
from prism_tune.run.timings import read_timings, sum_attempts

_HEADER = ("Run", "To do", "select, h", "tune, h", "evaluate, h", "disk, GB")
_STAGES: tuple[Verb, ...] = ("select", "train", "evaluate")
_NUM_LISTED = 12
_GPU_TFLOPS = 125.0  # an A100: 312 at 40 % utilisation
_CPU_TFLOPS = 0.17  # two cores: docs/results.md, 1,970 records in 371 s


def build_plan_table(plan: Plan, tflops: float | None) -> Table:
    """One row for each run.

    Args:
        plan: what to show.
        tflops: what a device computes in a second, in 10^12 FLOPs; None takes what the plan's
            finished runs have measured, else an assumption.
    """
    rate, why = _find_rate(plan, tflops)
    starts = {str(cell.run.checkpoint): cell.config.model.path for cell in plan.before}
    estimates = _Estimates(starts)
    rows, hours, num_bytes = [], 0.0, 0.0
    for cell, remaining in plan.remaining.items():
        estimate = estimates.of(cell.config)
        left = _remaining_hours(remaining, estimate, rate)
        hours += sum(value or 0.0 for value in left)
        num_bytes += estimate.num_bytes if estimate and "train" in remaining else 0.0
        rows.append(_row(cell, remaining, left, estimate))
    num_due = sum(bool(remaining) for remaining in plan.runs.values())
    known = "" if not estimates.unknown else " of what is known"
    return Table(
        title=f"Plan: {plan.config.name}",
        header=_HEADER,
        rows=tuple(rows),
        notes=(
            f"{num_due} of {len(plan.runs)} runs are left: about {hours:,.1f} device-hours and "
            f"{num_bytes / 1e9:,.0f} GB{known}.",
            f"Hours: FLOPs by the model's shape at {rate:.3g} TFLOP/s a device ({why}); answering "
            "takes longer than its FLOPs. Disk: features, subset, tuned model and last checkpoint.",
            *_notes(plan, sorted(estimates.unknown)),
        ),
    )


class _Estimates:
    """Of configs, over models and pools that are read once; `unknown` are those not there yet."""

    def __init__(self, starts: dict[str, str]) -> None:
        self._starts = starts
        self._pools: dict[str, PoolSize | None] = {}
        self._shapes: dict[str, Shape | None] = {}
        self.unknown: set[str] = set()

    def of(self, config: Config) -> Estimate | None:
        model, records = config.model.path, config.data.records
        if records not in self._pools:
            self._pools[records] = measure_pool(config)
        read = read_path(config) if "select" in stages_of(config) else model
        shape, of_read, pool = self._shape(model), self._shape(read), self._pools[records]
        found = ((model, shape), (read, of_read), (records, pool))
        self.unknown |= {path for path, what in found if what is None}
        return estimate_run(config, shape, pool, of_read) if shape and pool else None

    def _shape(self, path: str) -> Shape | None:
        if path not in self._shapes:
            self._shapes[path] = read_shape(path) or read_shape(self._starts.get(path, path))
        return self._shapes[path]


def _find_rate(plan: Plan, tflops: float | None) -> tuple[float, str]:
    if tflops is not None:
        return tflops, "as given"
    entries = [e for cell in plan.runs for e in read_timings(cell.run) if e["stage"] == "training"]
    flops, seconds = sum_attempts(entries, "flops"), sum_attempts(entries, "device_seconds")
    if flops and seconds:
        return flops / seconds / 1e12, "measured on the runs so far"
    if shutil.which("nvidia-smi"):
        return _GPU_TFLOPS, "assumed: an A100; --tflops says otherwise"
    return _CPU_TFLOPS, "assumed: no GPU, two cores; --tflops says otherwise"


def _remaining_hours(
    remaining: Sequence[Verb], estimate: Estimate | None, rate: float
) -> list[float | None]:
    """Of each stage: 0 where it is done, None where it cannot be estimated."""
    if estimate is None:
        return [None if verb in remaining else 0.0 for verb in _STAGES]
    flops = (estimate.select_flops, estimate.tune_flops, estimate.evaluate_flops)
    return [
        (None if value is None else value / (rate * 1e12 * 3600)) if verb in remaining else 0.0
        for verb, value in zip(_STAGES, flops, strict=True)
    ]


def _row(
    cell: Cell,
    remaining: Sequence[Verb],
    left: Sequence[float | None],
    estimate: Estimate | None,
) -> tuple[TableCell, ...]:
    hours = [
        number_cell(value, digits=2) if verb in remaining else TableCell(INAPPLICABLE)
        for verb, value in zip(_STAGES, left, strict=True)
    ]
    size = (
        TableCell(MISSING) if estimate is None else number_cell(estimate.num_bytes / 1e9, digits=1)
    )
    return (
        TableCell(cell.config.name),
        TableCell(", ".join(remaining) or "finished"),
        *hours,
        size if "train" in remaining else TableCell(INAPPLICABLE),
    )


def _notes(plan: Plan, unknown: Sequence[str]) -> list[str]:
    notes = []
    if unknown:
        notes.append(f"n/a: not there yet, so nothing is known of its size: {', '.join(unknown)}.")
    missing = find_missing(plan)
    if missing:
        more = f" and {len(missing) - _NUM_LISTED} more" if len(missing) > _NUM_LISTED else ""
        notes.append(
            f"To be put in place first (data/README.md, docs/training.md): "
            f"{', '.join(missing[:_NUM_LISTED])}{more}."
        )
    tables = plan.config.compare.tables if plan.config.compare else {}
    if tables:
        notes.append(f"Tables at the end: {', '.join(tables)}.")
    return notes
