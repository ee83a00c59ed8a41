"""The processes that train together: torch.distributed, and DeepSpeed with or without a GPU.

Launched by torchrun, the deepspeed launcher or srun, or as one plain process.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from prism_tune.config.sections import TrainingConfig
from prism_tune.processes import speak_as_torchrun, world_size
from prism_tune.run.ranks import meet, open_group

_TIMEOUT_SECONDS = 1800


@contextmanager
def training_group(device: torch.device, training: TrainingConfig) -> Iterator[None]:
    """Open the process group that training needs and close it at the end.

    Processes that wait for each other within a step longer than `training.hf.ddp_timeout` seconds
    (half an hour unless set, as in transformers) end with an error.

    The environment is put back as it was: transformers and DeepSpeed write to it, and a later
    stage of the same process must not inherit that.
    """
    environment = dict(os.environ)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        timeout = timedelta(seconds=training.hf.get("ddp_timeout", _TIMEOUT_SECONDS))
        if world_size() > 1:
            speak_as_torchrun()
            meet()  # DeepSpeed and NCCL would wait for half an hour, and name nobody
        if training.deepspeed is not None:
            _init_deepspeed(device, timeout)
        elif world_size() > 1:
            open_group(_backend(device), timeout)
        yield
    finally:
        if training.deepspeed is not None:
            _close_deepspeed()
        elif distributed.is_initialized():
            distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(environment)


def _init_deepspeed(device: torch.device, timeout: timedelta) -> None:
    if "RANK" not in os.environ:
        _pose_as_single_rank()
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed calls these at every step, and each time would cut through the progress line.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    import deepspeed

    if device.type == "cpu":
        # Its only use is a faster all-reduce within one machine; compiling it takes a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=_backend(device), timeout=timeout)


def _close_deepspeed() -> None:
    """Also forget the groups that DeepSpeed keeps: a second training would ask for them in vain.

    And what transformers knows of ZeRO-3: an error holds the arguments that keep it, and the next
    model of this process would be loaded in parts.
    """
    from deepspeed import comm
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()

    if comm.is_initialized():
        comm.destroy_process_group()


def _pose_as_single_rank() -> None:
    """Without these variables DeepSpeed looks for MPI."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"
