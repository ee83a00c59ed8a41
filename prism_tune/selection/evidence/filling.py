"""Filling a store: what it does not have is computed shard by shard, by every process.

Keys and the way to compute their rows go in; finished shards in the store's folder come out. Shard
i of those missing belongs to process i modulo their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset

from prism_tune.processes import from_main, gather, rank, world_size
from prism_tune.selection.evidence.encoding import Encoded, load_units
from prism_tune.selection.evidence.progress import UnitProgress
from prism_tune.selection.evidence.runner import BatchRunner
from prism_tune.selection.evidence.shard_builder import Counts, ShardBuilder
from prism_tune.selection.evidence.store import FeatureStore


@dataclass(frozen=True)
class Computation:
    """How rows are computed.

    `encode` makes the units of some keys, in their order; `load_runner` is called where something
    is missing; `order` sorts the units of a shard, so that units of like length share a batch.
    """

    title: str
    load_runner: Callable[[], BatchRunner]
    encode: Callable[[Sequence[str]], Dataset[Encoded]]
    num_workers: int
    order: Callable[[str], int] | None = None


def fill_store(
    store: FeatureStore,
    keys: Sequence[str],
    computation: Computation,
    on_shard: Callable[[Counts], None],
    announce: Callable[[int], None],
) -> int:
    """Compute the rows of the sorted `keys` that the store does not have; returns how many.

    Args:
        store: begun, on disk.
        keys: all that are wanted.
        computation: how.
        on_shard: called with the counts of each finished shard, of any process.
        announce: called with the number of rows to compute, before it begins.
    """
    planned = from_main(lambda: store.plan(keys))
    num_planned = sum(len(shard) for shard in planned)
    announce(num_planned)
    own = _compute(store, planned[rank() :: world_size()], computation, on_shard)
    for number, counts in enumerate(gather(own)):
        if number != rank():
            on_shard(counts)
    return num_planned


def _compute(
    store: FeatureStore,
    shards: Sequence[tuple[str, ...]],
    computation: Computation,
    on_shard: Callable[[Counts], None],
) -> Counts:
    """Compute and write the given shards, one after the other; their total counts."""
    total: Counts = {}
    if not shards:
        return total
    if computation.order is not None:
        shards = [tuple(sorted(shard, key=computation.order)) for shard in shards]
    every_key = [key for shard in shards for key in shard]
    runner = computation.load_runner()
    stream = iter(load_units(computation.encode(every_key), computation.num_workers))
    with UnitProgress(len(every_key), computation.title) as progress:
        for shard in shards:
            builder = ShardBuilder(runner, progress.advance)
            for key in shard:
                builder.add(key, next(stream))
            store.write_shard(shard, builder.finish(), builder.failed, builder.counts)
            on_shard(builder.counts)
            total = {name: total.get(name, 0) + n for name, n in builder.counts.items()}
    return total
