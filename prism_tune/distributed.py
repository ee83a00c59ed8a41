"""This process's place among the launched ones, as torchrun, deepspeed and SLURM set it.

Reads environment variables only; torch is imported where it is used.
"""

from __future__ import annotations

import os


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
    """Wait for every process; nothing to wait for outside a process group."""
    if world_size() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
