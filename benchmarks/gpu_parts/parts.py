"""The parts that need no file of their own, each with the work folder as its first argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_parts import meter, shapes


def measure_device(work: Path) -> dict[str, Any]:
    """See `meter`."""
    return meter.measure_device()


def measure_nccl(work: Path) -> dict[str, Any]:
    """See `meter`."""
    return meter.measure_nccl()


def draw_images(work: Path, *, toy: bool) -> dict[str, Any]:
    """See `shapes`."""
    return shapes.draw_images(work, toy=toy)


def draw_mix(work: Path, *, toy: bool) -> dict[str, Any]:
    """See `shapes`."""
    return shapes.draw_mix(work, toy=toy)


def draw_model(work: Path, *, name: str, toy: bool) -> dict[str, Any]:
    """See `shapes`."""
    return shapes.draw_model(name, work, toy=toy)
