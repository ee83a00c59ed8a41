"""What a selection has cost: its own work, and the evidence it reads, whenever that was computed.

The seconds of evidence stand in its shards. They are taken off this attempt's clock while it
computes, and charged to every selection that reads the shards, in full: a rescoring of two seconds
is not the cost of a selection. Of a shard that also has another pool's units, the own share counts.
What a killed attempt has computed counts as far as its shards were finished; its other time up to
the last of these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prism_tune.features.shards import Shard
from prism_tune.models.devices import name_device, pick_device
from prism_tune.processes import is_main, world_size
from prism_tune.run.folder import RunDir
from prism_tune.run.log import open_log
from prism_tune.run.timings import StageTimer, latest_attempts

STAGE = "selection"

COUNTED = ("images", "tokens", "flops")
"""What evidence, and a warm-up, count of their work."""

WARMUP = "warmup"
"""What timings.json calls a warm-up among the evidence."""


class SelectionMeter:
    """Counts on the main process; does nothing on the others.

    Args:
        timer: of this attempt; None on the other processes.
    """

    def __init__(self, timer: StageTimer | None) -> None:
        self._timer = timer

    def count(self, **counts: float) -> None:
        """Add to the attempt's counts and save its time so far."""
        if self._timer is not None:
            self._timer.tick(**counts)

    def leave_out(self, device_seconds: float) -> None:
        """These are not this attempt's own: they stand in a shard, or were spent waiting."""
        if self._timer is not None:
            self._timer.leave_out(device_seconds)

    def charge(
        self,
        read: Mapping[str, Sequence[tuple[Shard, float]]],
        beside: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Charge for evidence, by kind: the shards that were read, and the share of each.

        `beside` are entries of timings.json for what had to be there before (a warm-up).
        """
        if self._timer is not None:
            shards = [entry for kind in read for entry in _sum_up(kind, read[kind])]
            self._timer.charge([*beside, *shards])


@contextmanager
def meter_selection(run: RunDir, fingerprint: str, *, force: bool) -> Iterator[SelectionMeter]:
    """Meter one attempt; unfinished ones of the same selection add up.

    Args:
        run: whose `timings.json` is written.
        fingerprint: of what the selection reads.
        force: forget earlier attempts, because nothing of theirs is used.
    """
    if not is_main():
        open_log(run.log)
        yield SelectionMeter(None)
        return
    with StageTimer(
        run,
        STAGE,
        fingerprint=fingerprint,
        device=name_device(pick_device()),
        num_devices=world_size(),
        restart=force,
    ) as timer:
        yield SelectionMeter(timer)


def read_cost(run: RunDir) -> dict[str, Any]:
    """What the selection of a run has cost so far, for its manifest."""
    entries = latest_attempts(run, STAGE)
    wall_seconds = sum(entry["wall_seconds"] for entry in entries)
    totals = {name: sum(e["counts"].get(name, 0) for e in entries) for name in COUNTED}
    return {
        "wall_seconds": round(wall_seconds, 3),
        "device_seconds": round(sum(entry["device_seconds"] for entry in entries), 3),
        "evidence_seconds": round(sum(e["device_seconds"] for e in entries if e["evidence"]), 3),
        "warmup_seconds": round(
            sum(e["device_seconds"] for e in entries if e["evidence"] == WARMUP), 3
        ),
        "num_attempts": sum(not entry["evidence"] for entry in entries),
        "num_images": totals["images"],
        "num_tokens": totals["tokens"],
        "flops_estimate": totals["flops"],
        "images_per_second": round(totals["images"] / max(wall_seconds, 1e-9), 3),
    }


def _sum_up(kind: str, shards: Sequence[tuple[Shard, float]]) -> Iterator[dict[str, Any]]:
    """An entry of timings.json for each sort of machine."""
    groups: dict[tuple[str, int], list[tuple[Shard, float]]] = defaultdict(list)
    for shard, share in shards:
        groups[shard.device, shard.num_devices].append((shard, share))
    for (device, num_devices), members in groups.items():
        seconds = sum(shard.seconds * share for shard, share in members)
        yield {
            "evidence": kind,
            "device": device,
            "num_devices": num_devices,
            "wall_seconds": round(seconds / num_devices, 3),
            "device_seconds": round(seconds, 3),
            "counts": {
                name: round(sum(shard.counts[name] * share for shard, share in members))
                for name in COUNTED
            },
        }
