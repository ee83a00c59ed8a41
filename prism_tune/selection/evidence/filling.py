"""The one loop: what stores do not have is computed shard by shard, by every process.

Units and the way to compute their rows go in; finished shards come out. Shard i of those missing
belongs to process i modulo their number. Batches are consecutive units of one shard, so that they
depend neither on the number of processes nor on what was finished before a kill.

Shape legend: U rows of a shard, D width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from prism_tune.models.devices import name_device, pick_device
from prism_tune.processes import from_main, gather, is_main, rank, world_size
from prism_tune.run.progress import UnitProgress
from prism_tune.selection.evidence import store as evidence_store
from prism_tune.selection.evidence.encoding import Encoded
from prism_tune.selection.evidence.parcels import load_units
from prism_tune.selection.evidence.runner import Batches, Rows, Runner, group
from prism_tune.selection.evidence.source import Gathering, Reading
from prism_tune.selection.evidence.store import EvidenceStore, lock_stores
from prism_tune.selection.meter import SelectionMeter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computation:
    """How rows are computed.

    Attributes:
        title: what they are, for the log and the progress bar.
        load_runner: called where something is missing.
        encode: makes the units of some keys, in their order.
        tokens_per_batch: padded tokens of a batch.
        num_workers: processes that encode.
        order: sorts the units of a shard, so that units of like length share a batch.
        began: when its preparation began; a process's first shard takes its time from there.
    """

    title: str
    load_runner: Callable[[], Runner]
    encode: Callable[[Sequence[str]], Dataset[Encoded]]
    tokens_per_batch: int
    num_workers: int
    began: float
    order: Callable[[str], int] | None = None


def fill(
    stores: Sequence[EvidenceStore],
    keys: Sequence[str],
    computation: Computation,
    gathering: Gathering,
) -> Reading:
    """Compute the rows of the sorted `keys` that one of the stores does not have; read the first.

    What is read is linked first, so that no other run's `--force` takes it away from its reader.

    Args:
        stores: one for each matrix that the runner makes.
        keys: all units that are wanted.
        computation: how.
        gathering: for which attempt.
    """
    store, meter, force, num_computed = stores[0], gathering.meter, gathering.force, 0
    while True:
        num_computed += _compute_missing(stores, keys, computation, meter, force=force)
        shards = from_main(lambda: store.take(keys, gathering.links / store.kind))
        if shards is not None:
            return Reading(store, tuple(shards), len(keys), num_computed)
        logger.info("%s: deleted while it was read; looking again", store.kind)
        force = False


def _compute_missing(
    stores: Sequence[EvidenceStore],
    keys: Sequence[str],
    computation: Computation,
    meter: SelectionMeter,
    *,
    force: bool,
) -> int:
    """Compute what one of the stores does not have; how many rows that are.

    One run at a time computes; another that wants the same waits, and finds it. The seconds of the
    shards stand in these, so they are taken off the meter, as waiting is.
    """
    num_missing = from_main(
        lambda: len(keys) if force else len(set().union(*(s.missing(keys) for s in stores)))
    )
    logger.info("%s: %d distinct, %d to compute", computation.title, len(keys), num_missing)
    if num_missing == 0:
        return 0
    with lock_stores(stores) if is_main() else nullcontext(0.0) as waited:
        plan, waited = from_main(lambda: (_plan(stores, keys, force), waited))
        meter.leave_out(waited * world_size())
        shards = plan.shards[rank() :: world_size()]
        if computation.order is not None:
            shards = [sorted(shard, key=computation.order) for shard in shards]
        own = 0.0
        targets = list(zip(stores, plan.lacking, strict=True))
        for seconds in _compute(targets, shards, computation, computation.began + waited):
            own += seconds
            meter.leave_out(seconds * world_size())
        meter.leave_out(sum(gather(own)) - own * world_size())
    return sum(len(shard) for shard in plan.shards)


Target = tuple[EvidenceStore, set[str]]
"""A store, and the units that it lacks."""


@dataclass(frozen=True)
class _Plan:
    """Shards to compute, and the units that each store lacks."""

    shards: list[list[str]]
    lacking: list[set[str]]


def _plan(stores: Sequence[EvidenceStore], keys: Sequence[str], force: bool) -> _Plan:
    """What is to be computed, on locked stores.

    Whole shards are taken out of the sorted keys, so what remains after a kill falls into the same
    shards as before.
    """
    for store in stores:
        store.remove_partial()
        if force:
            store.forget(keys)
        if not store.manifest.exists():
            store.begin()
    lacking = [store.missing(keys) for store in stores]
    left = [key for key in keys if any(key in of_store for of_store in lacking)]
    size = evidence_store.UNITS_PER_SHARD
    shards = [left[start : start + size] for start in range(0, len(left), size)]
    return _Plan(shards, lacking)


def _compute(
    targets: Sequence[Target],
    shards: Sequence[Sequence[str]],
    computation: Computation,
    began: float,
) -> Iterator[float]:
    """Compute and write the given shards, one after the other; gives the seconds of each."""
    if not shards:
        return
    every_key = [key for shard in shards for key in shard]
    runner = computation.load_runner()
    batches = Batches(computation.tokens_per_batch)
    encoded = computation.encode(every_key)
    units = load_units(encoded, len(every_key), computation.num_workers, runner.dtype)
    with UnitProgress(len(every_key), computation.title) as progress:
        for keys in shards:
            found = _run_shard(keys, units, runner, batches, progress.advance)
            now = time.perf_counter()
            found.write(targets, keys, runner.width, now - began)
            yield now - began
            began = now


def _run_shard(
    keys: Sequence[str],
    units: Iterator[Encoded],
    runner: Runner,
    batches: Batches,
    advance: Callable[[int], None],
) -> _ShardRows:
    """The rows of the next `len(keys)` units.

    The next batch is received from the workers by a thread while the device computes this one: it
    takes as long as the shallow layers of a 7B model on a fast GPU.
    """
    found = _ShardRows()
    usable = _usable(keys, units, found, advance)
    grouped = group(usable, batches)
    with ThreadPoolExecutor(1, "receive") as receiver:
        upcoming = receiver.submit(next, grouped, None)
        while batch := upcoming.result():
            upcoming = receiver.submit(next, grouped, None)
            found.add(batch, batches.run(runner.run_batch, batch), runner.estimate_flops(batch))
            advance(len(batch))
    return found


def _usable(
    keys: Sequence[str],
    units: Iterator[Encoded],
    found: _ShardRows,
    advance: Callable[[int], None],
) -> Iterator[Encoded]:
    """The units of the keys that have a row; `found` is told of all."""
    for key in keys:
        unit = next(units)
        found.has_row.append(unit.fault is None)
        if unit.fault is None:
            yield unit
        else:
            found.failed[key] = unit.fault
            advance(1)


@dataclass
class _ShardRows:
    """What a shard has so far; its rows stay on the device."""

    rows: list[Rows] = field(default_factory=list)
    has_row: list[bool] = field(default_factory=list)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    counts: dict[str, float] = field(
        default_factory=lambda: {"images": 0, "tokens": 0, "flops": 0.0}
    )

    def add(self, batch: Sequence[Encoded], rows: Rows, flops: float) -> None:
        self.rows.append(rows)
        self.counts["images"] += sum(unit.num_images for unit in batch)
        self.counts["tokens"] += sum(len(unit.pooled_L) for unit in batch)
        self.counts["flops"] += flops

    def write(
        self, targets: Sequence[Target], keys: Sequence[str], width: int, seconds: float
    ) -> None:
        """Into every store, the rows that it has not."""
        described: dict[str, Any] = {
            "counts": self.counts,
            "seconds": round(seconds, 3),
            "device": name_device(pick_device()),
            "num_devices": world_size(),
        }
        for number, (store, lacking) in enumerate(targets):
            at = [place for place, key in enumerate(keys) if key in lacking]
            if at:
                lacked = [keys[place] for place in at]
                failed = {key: self.failed[key] for key in lacked if key in self.failed}
                rows_UD = self._matrix(number, width)[at]
                store.write_shard(lacked, rows_UD, {"failed": failed, **described})

    def _matrix(self, number: int, width: int) -> NDArray[np.float32]:
        """(U, D) of one store, NaN for units without row."""
        rows_UD = np.full((len(self.has_row), width), np.nan, dtype=np.float32)
        if self.rows:
            values = torch.cat([rows[number] for rows in self.rows])
            rows_UD[np.array(self.has_row)] = values.cpu().numpy()
        return rows_UD
