"""This process's place among the launched ones, as torchrun, deepspeed and SLURM set it.

Reads environment variables only; torch is imported where it is used.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import Any

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
