"""A plan as a table to read: what is left to run, in device-hours and disk."""

from __future__ import annotations

from collections.abc import Sequence

from prism_tune.results.estimates import Estimate, PoolSize, estimate_run, measure_pool
from prism_tune.results.plan import PLANS, Plan, PlannedRun, find_missing
from prism_tune.results.render import INAPPLICABLE, MISSING, Cell, Table, number_cell
from prism_tune.results.shapes import find_shape
from prism_tune.run.timings import read_timings, sum_attempts

_HEADER = ("Run", "To do", "select, h", "tune, h", "evaluate, h", "disk, GB")
_STAGES = ("select", "train", "evaluate")
_NUM_LISTED = 12


def build_plan_table(plan: Plan, tflops: float | None) -> Table:
    """One row for each run.

    Args:
        plan: what to show.
        tflops: what a device computes in a second, in 10^12 FLOPs; None takes what the plan's
            finished runs have measured, else the plan's assumption.
    """
    rate, why = _find_rate(plan, tflops)
    pools: dict[str, PoolSize | None] = {}
    rows, hours, num_bytes, assumed = [], 0.0, 0.0, set()
    for run in (*plan.alignments, *plan.runs):
        records = run.config.data.records
        if records not in pools:
            pools[records] = measure_pool(run.config)
        shape, is_read = find_shape(run.config.model.path)
        pool = pools[records]
        if run.remaining and shape and not is_read:
            assumed.add(run.config.model.path)
        if run.remaining and pool and not pool.is_measured:
            assumed.add(records)
        estimate = estimate_run(run.config, shape, pool) if shape and pool else None
        left = _remaining_hours(run, estimate, rate)
        hours += sum(value or 0.0 for value in left)
        num_bytes += estimate.num_bytes if estimate and "train" in run.remaining else 0.0
        rows.append(_cells(run, left, estimate))
    num_due = sum(bool(run.remaining) for run in plan.runs)
    return Table(
        title=f"Plan: {plan.name}",
        header=_HEADER,
        rows=tuple(rows),
        notes=(
            f"{num_due} of {len(plan.runs)} runs are left: about {hours:,.1f} device-hours and "
            f"{num_bytes / 1e9:,.0f} GB.",
            f"Hours: FLOPs by the model's shape at {rate:.3g} TFLOP/s a device ({why}); answering "
            "takes longer than its FLOPs. Disk: features, subset, tuned model and last checkpoint.",
            *_missing_notes(plan, sorted(assumed)),
            f"Tables at the end: {', '.join(plan.tables)}.",
        ),
    )


def _find_rate(plan: Plan, tflops: float | None) -> tuple[float, str]:
    if tflops is not None:
        return tflops, "as given"
    entries = [e for run in plan.runs for e in read_timings(run.run) if e["stage"] == "training"]
    flops, seconds = sum_attempts(entries, "flops"), sum_attempts(entries, "device_seconds")
    if flops and seconds:
        return flops / seconds / 1e12, "measured on the runs so far"
    return PLANS[plan.name].tflops, "assumed; --tflops says otherwise"


def _remaining_hours(run: PlannedRun, estimate: Estimate | None, rate: float) -> list[float | None]:
    """Of each stage: 0 where it is done, None where it cannot be estimated."""
    if estimate is None:
        return [None if verb in run.remaining else 0.0 for verb in _STAGES]
    flops = (estimate.select_flops, estimate.tune_flops, estimate.evaluate_flops)
    return [
        value / (rate * 1e12 * 3600) if verb in run.remaining else 0.0
        for verb, value in zip(_STAGES, flops, strict=True)
    ]


def _cells(
    run: PlannedRun, left: Sequence[float | None], estimate: Estimate | None
) -> tuple[Cell, ...]:
    hours = [
        number_cell(value, digits=2) if verb in run.remaining else Cell(INAPPLICABLE)
        for verb, value in zip(_STAGES, left, strict=True)
    ]
    disk = Cell(MISSING) if estimate is None else number_cell(estimate.num_bytes / 1e9, digits=1)
    return (
        Cell(run.config.name),
        Cell(", ".join(run.remaining) or "finished"),
        *hours,
        disk if "train" in run.remaining else Cell(INAPPLICABLE),
    )


def _missing_notes(plan: Plan, assumed: Sequence[str]) -> list[str]:
    notes = []
    if assumed:
        notes.append(f"Not there yet, sizes assumed: {', '.join(assumed)}.")
    missing = find_missing(plan)
    if missing:
        more = f" and {len(missing) - _NUM_LISTED} more" if len(missing) > _NUM_LISTED else ""
        notes.append(
            f"To be put in place first (data/README.md, docs/training.md): "
            f"{', '.join(missing[:_NUM_LISTED])}{more}."
        )
    return notes
