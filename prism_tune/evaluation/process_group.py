"""Joining the processes that a launcher started, for as long as they answer questions together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed

from prism_tune.distributed import world_size

_TIMEOUT = timedelta(hours=12)
"""One process may finish its share of a long benchmark hours before another."""


@contextmanager
def process_group() -> Iterator[None]:
    """Let `distributed.barrier` wait for every process; nothing to do for a single one."""
    if world_size() == 1 or torch.distributed.is_initialized():
        yield
        return
    torch.distributed.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
