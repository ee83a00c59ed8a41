"""What a selection has cost: time, images, tokens and estimated FLOPs, in the run's timings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from prism_tune.models.load import pick_device
from prism_tune.processes import is_main, world_size
from prism_tune.run.folder import RunDir
from prism_tune.run.log import open_log
from prism_tune.run.timings import StageTimer, read_timings
from prism_tune.selection.evidence.shard_builder import Counts

STAGE = "selection"

_COUNTED = ("images", "tokens", "flops")


class SelectionMeter:
    """Counts on the main process; does nothing on the others.

    Args:
        run: the run.
        timer: of this attempt; None on the other processes.
    """

    def __init__(self, run: RunDir, timer: StageTimer | None) -> None:
        self._run = run
        self._timer = timer

    def count(self, counts: Counts) -> None:
        """Add to the attempt's counts and save its time so far."""
        if self._timer is not None:
            self._timer.tick(**counts)

    def read(self) -> dict[str, Any]:
        """Sums over the attempts that the present features and scores took."""
        entries = [entry for entry in read_timings(self._run) if entry["stage"] == STAGE]
        wall_seconds = sum(entry["wall_seconds"] for entry in entries)
        totals = {name: sum(e["counts"].get(name, 0) for e in entries) for name in _COUNTED}
        return {
            "wall_seconds": round(wall_seconds, 3),
            "device_seconds": round(sum(entry["device_seconds"] for entry in entries), 3),
            "num_attempts": len(entries),
            "num_images": int(totals["images"]),
            "num_tokens": int(totals["tokens"]),
            "flops_estimate": totals["flops"],
            "images_per_second": round(totals["images"] / max(wall_seconds, 1e-9), 3),
        }


@contextmanager
def meter_selection(run: RunDir, fingerprint: str, *, force: bool) -> Iterator[SelectionMeter]:
    """Meter one attempt; attempts with the same fingerprint add up.

    Those with another wait aside: their evidence stays in the run, and a selection that comes back
    to it is charged for it.

    Args:
        run: whose `timings.json` is written.
        fingerprint: what the time belongs to (see `inputs.meter_fingerprint`).
        force: forget earlier attempts, because nothing of theirs is used.
    """
    if not is_main():
        open_log(run.log)
        yield SelectionMeter(run, None)
        return
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    with StageTimer(
        run,
        STAGE,
        fingerprint=fingerprint,
        device=name,
        num_devices=world_size(),
        restart=force,
        set_aside=True,
    ) as timer:
        yield SelectionMeter(run, timer)
