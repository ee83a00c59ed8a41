"""What the launched processes of a stage tell each other; one alone has nothing to say.

Only small control messages travel (gloo, also beside GPUs): features and answers go through files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed

from prism_tune.distributed import PATIENCE, barrier, is_main, patient_group, world_size

Value = TypeVar("Value")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the launched processes for as long as they work together."""
    if world_size() == 1 or torch.distributed.is_initialized():
        yield
        return
    torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


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
    if world_size() == 1:
        return compute()
    box = [compute() if is_main() else None]
    torch.distributed.broadcast_object_list(box, src=0, group=patient_group())
    return box[0]  # type: ignore[return-value]


def gather(value: Value) -> list[Value]:
    """Every process's value, in the order of ranks, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Value | None] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]
