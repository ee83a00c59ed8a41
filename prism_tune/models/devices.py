"""What to compute on, and in: this process's device, its name, and the precision it is good at."""

from __future__ import annotations

from pathlib import Path

import torch

from prism_tune.config.sections import DType
from prism_tune.processes import local_rank


def pick_device() -> torch.device:
    """This process's accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return torch.device("cpu")


def name_device(device: torch.device) -> str:
    """For example "cpu" or "NVIDIA H100"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def resolve_dtype(name: DType, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it, else float16 (CUDA) or float32 (CPU)."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_computes_bf16() else torch.float32


def _cpu_computes_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags
