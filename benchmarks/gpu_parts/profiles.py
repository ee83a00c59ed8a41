"""Where the time of a training step goes: what the GPU ran, what this process did, who waited."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_parts.training import configure
from torch.profiler import ProfilerActivity, profile

from prism_tune.run.folder import RunDir
from prism_tune.training.train import train
from prism_tune.training.trainer import TuningTrainer

_FROM, _TO = 4, 6
_NUM_ROWS = 25


def run(work: Path, *, model: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A training of six steps, the last two of them profiled.

    Args:
        work: the work folder.
        model: of `shapes.draw_model`.
        name: of the run.
        options: as of `training.run`.

    Returns:
        Seconds within and between steps, and for the most expensive operations their calls a step
        and their milliseconds a step on the GPU and in this process.
    """
    config = configure(work, name, model, _TO, options)
    with _watched_steps() as (spans, profiler):
        train(config, RunDir(work / "runs" / name), force=True)
    within = [end - begin for begin, end in spans]
    between = [following[0] - step[1] for step, following in itertools.pairwise(spans)]
    return {
        "seconds_within": within,
        "seconds_between": between,
        "operations": _most_expensive(profiler, _TO - _FROM),
    }


@contextmanager
def _watched_steps() -> Iterator[tuple[list[tuple[float, float]], profile]]:
    """Training steps are timed, those of the window profiled."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities)
    spans: list[tuple[float, float]] = []
    step = TuningTrainer.training_step

    def timed(self: Any, *arguments: Any, **options: Any) -> Any:
        if len(spans) == _FROM:
            profiler.start()
        begin = time.perf_counter()
        result = step(self, *arguments, **options)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spans.append((begin, time.perf_counter()))
        if len(spans) == _TO:
            profiler.stop()
        return result

    TuningTrainer.training_step = timed  # type: ignore[method-assign]
    try:
        yield spans, profiler
    finally:
        TuningTrainer.training_step = step  # type: ignore[method-assign]


def _most_expensive(profiler: profile, num_steps: int) -> dict[str, list[dict[str, Any]]]:
    """By own time on the GPU and in this process."""
    events = profiler.key_averages()
    found = {}
    for place, key in (("gpu", "self_device_time_total"), ("cpu", "self_cpu_time_total")):
        ordered = sorted(events, key=lambda event: -getattr(event, key))[:_NUM_ROWS]
        found[place] = [
            {
                "name": event.key[:90],
                "calls": event.count / num_steps,
                "ms": round(getattr(event, key) / 1000 / num_steps, 2),
            }
            for event in ordered
        ]
    return found
