"""What a device computes in a second: measured by runs that there are, else assumed.

In: a plan. Out: for each verb a rate in 10^12 FLOPs a second, and where it is from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_tune.compare.cells import Verb
from prism_tune.compare.launch import may_use_gpus
from prism_tune.compare.plan import Plan
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir
from prism_tune.run.record import recorded_config
from prism_tune.run.timings import read_timings, sum_attempts

_STAGES: dict[Verb, str] = {"select": "selection", "train": "training", "evaluate": "evaluation"}
_GPU_TFLOPS = 125.0  # an A100: 312 at 40 % utilisation
_CPU_TFLOPS = 0.17  # two cores, measured in tuning; rows of some 40 tokens reach a third of it


@dataclass(frozen=True)
class Rate:
    """10^12 FLOPs a second of a device, and why it is taken to be so."""

    tflops: float
    why: str


def find_rates(plan: Plan, tflops: float | None) -> dict[Verb, Rate]:
    """The rate of each verb: as given, as measured for it, as measured in tuning, or assumed.

    Measured are the plan's own runs and, beside them, those of the same models.
    """
    if tflops is not None:
        return dict.fromkeys(_STAGES, Rate(tflops, "as given"))
    entries = [entry for run in _list_runs(plan) for entry in read_timings(run)]
    measured = {verb: _measure(entries, stage) for verb, stage in _STAGES.items()}
    training = measured["train"]
    usual = _assume() if training is None else Rate(training, "measured in tuning")
    why = "measured on the runs so far"
    return {v: usual if rate is None else Rate(rate, why) for v, rate in measured.items()}


def _assume() -> Rate:
    if may_use_gpus():
        return Rate(_GPU_TFLOPS, "assumed: an A100; --tflops says otherwise")
    return Rate(_CPU_TFLOPS, "assumed: no GPU, two cores; --tflops says otherwise")


def _measure(entries: list[dict[str, Any]], stage: str) -> float | None:
    own = [entry for entry in entries if entry["stage"].partition("/")[0] == stage]
    counted = [entry for entry in own if entry["counts"].get("flops")]
    flops, seconds = sum_attempts(counted, "flops"), sum_attempts(counted, "device_seconds")
    return flops / seconds / 1e12 if flops and seconds else None


def _list_runs(plan: Plan) -> Iterator[RunDir]:
    own = {cell.run.root.resolve() for cell in plan.remaining}
    yield from map(RunDir, sorted(own))
    models = {cell.config.model.path for cell in plan.remaining}
    for timings in sorted(Path(plan.config.output_dir).glob("*/timings.json")):
        run = RunDir(timings.parent)
        try:
            is_like = recorded_config(run).model.path in models
        except UserError:
            continue
        if is_like and run.root.resolve() not in own:
            yield run
