"""A plan as a table to read: what is left to run, in device-hours and disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prism_tune.compare.cells import Cell, Verb, stages_of
from prism_tune.compare.estimates import Estimate, count_asked, estimate_run, read_path
from prism_tune.compare.plan import Plan, find_missing
from prism_tune.compare.rates import Rate, find_rates
from prism_tune.compare.shapes import PoolSize, Shape, measure_pool, read_shape
from prism_tune.config.sections import Config
from prism_tune.results.render import INAPPLICABLE, MISSING, Table, number_cell
from prism_tune.results.render import Cell as TableCell
from prism_tune.run.folder import RunDir

_HEADER = (
    *("Run", "To do", "select, h", "tune, h", "evaluate, h"),
    *("memory, GB", "disk, GB", "tokens, M", "images"),
)
_STAGES: tuple[Verb, ...] = ("select", "train", "evaluate")
_NUM_LISTED = 12


def build_plan_table(plan: Plan, tflops: float | None, num_devices: int = 1) -> Table:
    """One row for each run.

    Args:
        plan: what to show.
        tflops: what a device computes in a second, in 10^12 FLOPs; None takes what runs of the same
            model have measured, else an assumption.
        num_devices: that tune together.
    """
    rates = find_rates(plan, tflops)
    starts = {str(cell.run.checkpoint): cell.config.model.path for cell in plan.before}
    audit = RunDir(Path(plan.config.output_dir) / plan.config.name).audit
    estimates = _Estimates(starts, num_devices, audit)
    rows, hours, num_bytes = [], 0.0, 0.0
    for cell, remaining in plan.remaining.items():
        estimate = estimates.of(cell.config)
        left = _remaining_hours(remaining, estimate, rates)
        hours += sum(value or 0.0 for value in left)
        num_bytes += estimate.num_bytes if estimate and "train" in remaining else 0.0
        rows.append(_row(cell, remaining, left, estimate))
    num_due = sum(bool(remaining) for remaining in plan.runs.values())
    takes = f": about {_format_hours(hours)} and {_format_size(num_bytes)}"
    if estimates.unknown:
        takes = f"{takes} of what is known" if hours else "; what they take is not known yet"
    return Table(
        title=f"Plan: {plan.config.name}",
        header=_HEADER,
        rows=tuple(rows),
        notes=(
            f"{num_due} of {len(plan.runs)} runs are left{takes}.",
            *_explain_reruns(plan),
            f"Hours: FLOPs by the model's shape, at TFLOP/s a device: {_describe_rates(rates)}; "
            "answering takes longer than its FLOPs.",
            f"Memory: the largest stage's, a device of {num_devices} (--nproc): weights, "
            "optimizer, activations of the largest batch; no measurement. Disk: features, subset, "
            "tuned model and last checkpoint.",
            f"Tokens and images: what tuning goes over; {estimates.describe_lengths()}.",
            *_notes(plan, sorted(estimates.unknown)),
        ),
    )


def _explain_reruns(plan: Plan) -> list[str]:
    """One line for each finished stage that would run again; verbs behind one share its line."""
    listed = [
        f"{cell.config.name}: {verb} has finished and would run again: {reason}."
        for cell, reasons in plan.reasons.items()
        for verb, reason in reasons.items()
    ]
    more = [f"And {len(listed) - _NUM_LISTED} more."] if len(listed) > _NUM_LISTED else []
    return [*listed[:_NUM_LISTED], *more]


def _describe_rates(rates: dict[Verb, Rate]) -> str:
    """`tuning 17 (measured on the runs so far)`; once where all are the same."""
    if len(set(rates.values())) == 1:
        (rate,) = set(rates.values())
        return f"{rate.tflops:.3g} ({rate.why})"
    return ", ".join(f"{verb} {rate.tflops:.3g} ({rate.why})" for verb, rate in rates.items())


def _format_hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} device-hours"
    return f"{60 * hours:,.1f} device-minutes"


def _format_size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes < 1e10 else f"{num_bytes / 1e9:,.0f} GB"


class _Estimates:
    """Of configs, over models and pools that are read once; `unknown` are those not there yet."""

    def __init__(self, starts: dict[str, str], num_devices: int, audit: Path) -> None:
        self._starts = starts
        self._audit = audit
        self._num_devices = num_devices
        self._pools: dict[str, PoolSize | None] = {}
        self._shapes: dict[str, Shape | None] = {}
        self.unknown: set[str] = set()

    def of(self, config: Config) -> Estimate | None:
        model, records = config.model.path, config.data.records
        read = read_path(config) if "select" in stages_of(config) else model
        shape, of_read, pool = self._shape(model), self._shape(read), self._pool(config)
        found: list[tuple[str, object]] = [(model, shape), (read, of_read), (records, pool)]
        if "evaluate" in stages_of(config):
            asked = config.evaluation.benchmarks
            found += [(f"evaluation.data.{name}", count_asked(config, name)) for name in asked]
        self.unknown |= {path for path, what in found if what is None}
        if not shape or not pool:
            return None
        return estimate_run(config, shape, pool, of_read, self._num_devices)

    def describe_lengths(self) -> str:
        """Where the tokens of a record are from."""
        known = [pool for pool in self._pools.values() if pool]
        if known and all(pool.mean_tokens for pool in known):
            return "lengths as the audit has counted them"
        return "text counts as 4 characters a token until `prism-tune audit` has counted"

    def _pool(self, config: Config) -> PoolSize | None:
        """One file is several pools: columns and policy decide what its records are."""
        key = config.data.model_copy(update={"num_workers": 0}).model_dump_json()
        if key not in self._pools:
            self._pools[key] = measure_pool(config, self._audit)
        return self._pools[key]

    def _shape(self, path: str) -> Shape | None:
        if path not in self._shapes:
            self._shapes[path] = read_shape(path) or read_shape(self._starts.get(path, path))
        return self._shapes[path]


def _remaining_hours(
    remaining: Sequence[Verb], estimate: Estimate | None, rates: dict[Verb, Rate]
) -> list[float | None]:
    """Of each stage: 0 where it is done, None where it cannot be estimated."""
    if estimate is None:
        return [None if verb in remaining else 0.0 for verb in _STAGES]
    flops = (estimate.select_flops, estimate.tune_flops, estimate.evaluate_flops)
    return [
        0.0 if verb not in remaining else value and value / (rates[verb].tflops * 1e12 * 3600)
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
    memory = max((estimate.memory.get(v, 0.0) for v in remaining), default=0.0) if estimate else 0
    return (
        TableCell(cell.config.name),
        TableCell(", ".join(remaining) or "finished"),
        *hours,
        number_cell(memory / 1e9) if memory else TableCell(MISSING if remaining else INAPPLICABLE),
        *(
            (number_cell(estimate.num_bytes / 1e9), _millions(estimate), _images(estimate))
            if estimate and "train" in remaining
            else [TableCell(MISSING if "train" in remaining else INAPPLICABLE)] * 3
        ),
    )


def _millions(estimate: Estimate) -> TableCell:
    return number_cell(estimate.num_tokens / 1e6, digits=2)


def _images(estimate: Estimate) -> TableCell:
    return TableCell(f"{estimate.num_images:,.0f}", estimate.num_images)


def _notes(plan: Plan, unknown: Sequence[str]) -> list[str]:
    notes = []
    if unknown:
        notes.append(
            "n/a: not there yet, or a pool in a folder, so nothing is known of its size: "
            f"{', '.join(unknown)}."
        )
    missing = find_missing(plan)
    if missing:
        where = "To be put in place first (data/README.md, docs/training.md)"
        notes.append(f"{where}: {', '.join(missing)}.")
    tables = plan.config.compare.tables if plan.config.compare else {}
    if tables:
        notes.append(f"Tables at the end: {', '.join(tables)}.")
    return notes
