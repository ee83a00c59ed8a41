"""Which of the launched processes this is, and what they tell each other; one has nothing to say.

The variables of torchrun, deepspeed or srun go in; ranks, barriers and small control messages
(gloo, also beside GPUs) come out. Features and answers go through files. torch is imported only
where processes really talk.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

Value = TypeVar("Value")

_NUMBERS = itertools.count()

PATIENCE = timedelta(hours=12)
"""One process may prepare or finish its share hours before another (decoding a pool's images)."""


def rank() -> int:
    """Global rank; 0 when not launched by torchrun, deepspeed or srun."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def world_size() -> int:
    """Number of processes over all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Rank on this node: the index of this process's device."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def is_main() -> bool:
    """True on the process that writes artifacts and talks to the user."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process, however long; nothing to wait for outside a process group."""
    if world_size() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier(patient_group())


def patient_group() -> Any:
    """A group beside the default one, which gives up after minutes so that hangs are noticed."""
    import torch.distributed

    return _group_beside(torch.distributed.group.WORLD)


@lru_cache(maxsize=1)
def _group_beside(world: Any) -> Any:
    import torch.distributed

    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the launched processes for as long as they work together."""
    import torch.distributed

    if world_size() == 1 or torch.distributed.is_initialized():
        yield
        return
    open_group("gloo", PATIENCE)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():  # not where an error came out of `outside_group`
            torch.distributed.destroy_process_group()


@contextmanager
def outside_group() -> Iterator[None]:
    """Leave the processes' group for what opens one of its own, and join them again behind it."""
    import torch.distributed

    if not torch.distributed.is_initialized():
        yield
        return
    torch.distributed.destroy_process_group()
    yield
    open_group("gloo", PATIENCE)


def open_group(backend: str, timeout: timedelta) -> None:
    """Open the processes' group, the first or another after it was closed.

    Each finds its members under keys of its own: those of a group before would lead to sockets that
    are closed, for a launcher's store outlives the groups.

    Args:
        backend: "gloo" or "nccl".
        timeout: how long one waits for the others.
    """
    import torch.distributed

    store = torch.distributed.PrefixStore(f"group {next(_NUMBERS)}", _launched_store())
    torch.distributed.init_process_group(
        backend, store=store, rank=rank(), world_size=world_size(), timeout=timeout
    )


@lru_cache(maxsize=1)
def _launched_store() -> Any:
    import torch.distributed

    return next(iter(torch.distributed.rendezvous("env://", timeout=PATIENCE)))[0]


def main_first(compute: Callable[[], Value]) -> Value:
    """Call `compute` on the main process, then on the others, which find what it cached."""
    if is_main():
        value = compute()
        barrier()
        return value
    barrier()
    return compute()


def from_main(compute: Callable[[], Value]) -> Value:
    """The main process's value of `compute`, on every process."""
    import torch.distributed

    if world_size() == 1:
        return compute()
    box = [compute() if is_main() else None]
    torch.distributed.broadcast_object_list(box, src=0, group=patient_group())
    return box[0]  # type: ignore[return-value]


def greatest(value: int) -> int:
    """The greatest of every process's values, on every process."""
    if world_size() == 1:
        return value
    import torch

    box = torch.tensor([value])
    torch.distributed.all_reduce(box, torch.distributed.ReduceOp.MAX, group=patient_group())
    return int(box)


def gather(value: Value) -> list[Value]:
    """Every process's value, in the order of ranks, on every process."""
    import torch.distributed

    if world_size() == 1:
        return [value]
    values: list[Value | None] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]
