"""Which of the launched processes this is, and what they tell each other; one has nothing to say.

The variables of torchrun, deepspeed or srun go in; ranks, barriers and small control messages
(gloo, also beside GPUs) come out. Features and answers go through files. torch is imported only
where processes really talk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from prism_tune.errors import ConfigError, SharedError, UserError, first_line

Value = TypeVar("Value")
_COUNTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID")
_PEER = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|[Tt]imed out")
"""What torch says of a process that is gone, or late."""

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


def local_world_size() -> int:
    """Number of processes on this node; under srun the most that any has; 1 where nothing says."""
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"):
        counts = re.findall(r"\d+(?=\(|,|$)", os.environ.get(name, ""))  # srun: "8(x2),4"
        if counts:
            return max(1, *map(int, counts))
    return 1


def speak_as_torchrun() -> None:
    """Give the place of one process of several torchrun's names, the only ones libraries read.

    Unnamed, each would train by itself, all in one folder: DeepSpeed, accelerate and transformers
    know neither srun's variables nor the deepspeed launcher's own.
    """
    if world_size() > 1:
        os.environ.update(
            RANK=str(rank()),
            LOCAL_RANK=str(local_rank()),
            LOCAL_WORLD_SIZE=str(local_world_size()),
        )


def check_launch() -> None:
    """Whether a launcher's variables are numbers that go together; those left over may not be.

    Raises:
        ConfigError: they are not; the one at fault is taken away, so that it can be said.
    """
    for name in _COUNTED:
        value = os.environ.get(name)
        if value is not None and (not value.isdecimal() or (name, value) == ("WORLD_SIZE", "0")):
            del os.environ[name]
            raise ConfigError(
                f"{name} = {value!r} in the environment: expected a number, as torchrun or srun "
                f"sets it; `unset {name}` runs one process"
            )
    if rank() >= world_size():
        named = "RANK" if "RANK" in os.environ else "SLURM_PROCID"
        value = os.environ.pop(named)
        raise ConfigError(
            f"{named} = {value} in the environment, and WORLD_SIZE = {world_size()}: several "
            f"processes are started by torchrun, or by srun with WORLD_SIZE; `unset {named}` runs "
            "one"
        )


def is_main() -> bool:
    """True on the process that writes artifacts and talks to the user."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process, however long; nothing to wait for outside a process group.

    Raises:
        UserError: another process has ended.
    """
    if world_size() == 1:
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        with together():
            torch.distributed.barrier(patient_group())


@contextmanager
def together() -> Iterator[None]:
    """Something that takes every process.

    Raises:
        UserError: another one has ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        if not _PEER.search(str(error)):
            raise
        raise UserError(
            f"rank {rank()}: another process has ended or does not answer; what it printed says "
            f"why ({first_line(error)})"
        ) from error


def patient_group() -> Any:
    """A group beside the default one, which gives up after minutes so that hangs are noticed."""
    import torch.distributed

    return _group_beside(torch.distributed.group.WORLD)


@lru_cache(maxsize=1)
def _group_beside(world: Any) -> Any:
    import torch.distributed

    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def main_first(compute: Callable[[], Value]) -> Value:
    """Call `compute` on the main process, then on the others, which find what it cached.

    Raises:
        SharedError: on the others, what the main process has met with.
    """
    found: list[Value] = []

    def keep() -> None:
        found.append(compute())

    from_main(keep)
    return found[0] if found else compute()


def from_main(compute: Callable[[], Value]) -> Value:
    """The main process's value of `compute`, on every process.

    Raises:
        SharedError: on the others, what the main process has met with.
    """
    if world_size() == 1:
        return compute()
    if not is_main():
        value, error = _broadcast(None)
        if error is not None:
            raise SharedError(*error)
        return value
    try:
        value = compute()
    except UserError as error:
        _broadcast((None, (str(error), 2 if isinstance(error, ConfigError) else 1)))
        raise
    _broadcast((value, None))
    return value


def _broadcast(given: tuple[Any, tuple[str, int] | None] | None) -> Any:
    import torch.distributed

    box = [given]
    with together():
        torch.distributed.broadcast_object_list(box, src=0, group=patient_group())
    return box[0]


def greatest(value: int) -> int:
    """The greatest of every process's values, on every process."""
    if world_size() == 1:
        return value
    import torch

    box = torch.tensor([value])
    with together():
        torch.distributed.all_reduce(box, torch.distributed.ReduceOp.MAX, group=patient_group())
    return int(box)


def gather(value: Value) -> list[Value]:
    """Every process's value, in the order of ranks, on every process."""
    import torch.distributed

    if world_size() == 1:
        return [value]
    values: list[Value | None] = [None] * world_size()
    with together():
        torch.distributed.all_gather_object(values, value, group=patient_group())
    return values  # type: ignore[return-value]
