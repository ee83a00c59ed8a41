"""The scorers that read a matrix of features; they compute on the CPU, whatever else there is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernel_selectors import Drawn, select

from prism_tune.features.redundancy import redundancy_scores
from prism_tune.models.devices import pick_device

_BLOCK_ROWS = 65_536


def run(work: Path, *, rows: int, width: int, scorers: list[str]) -> dict[str, Any]:
    """Seconds of numpy's sum, of PRISM's scores and of the scorers named.

    Args:
        work: the work folder; the matrix is drawn into it.
        rows: of the matrix.
        width: of the matrix.
        scorers: names of `SCORERS`.
    """
    path = work / f"features_{rows}_{width}.npy"
    if not path.exists():
        _draw(path, rows, width)
    features = np.load(path, mmap_mode="r")
    found: dict[str, Any] = {"rows": rows, "width": width, "device": "cpu"}
    for name, call in (
        ("numpy sum", lambda: np.sum(features, dtype=np.float32)),
        ("prism", lambda: redundancy_scores(features)),
    ):
        begin = time.perf_counter()
        call()
        found[name] = {"seconds": time.perf_counter() - begin}
    nothing = np.empty(0, dtype=np.int64)
    drawn = Drawn(path, rows, np.empty((0, 2), dtype=np.int64), nothing, nothing)
    for name in scorers:
        counts = select(drawn, name, 0)
        found[name] = {"seconds": counts.seconds, "mib": counts.peak_bytes / 2**20}
    return found


def _draw(path: Path, rows: int, width: int) -> None:
    """Float16 features in a narrow cone, drawn on the device."""
    device = pick_device()
    torch.manual_seed(0)
    mean = 2 * torch.randn(width, device=device)
    part = path.with_suffix(".part")
    mapped = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(rows, width))
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        block = torch.randn(stop - start, width, device=device) + mean
        mapped[start:stop] = block.half().cpu().numpy()
    mapped.flush()
    part.rename(path)
