"""What every part needs of the device: waiting for it, its memory, its peak."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

_PEAK_TFLOPS = {"H100": 989, "H200": 989, "H800": 989, "A100": 312, "A800": 312, "L40S": 362}
"""Dense bfloat16, from the data sheets (NVIDIA); the SXM boards'."""


@dataclass(frozen=True)
class Device:
    """This process's device, idle."""

    name: str
    num_workers: int


def on_device() -> Device:
    """Wait until the device has done what it was given; what it is."""
    num_workers = min(14, max(1, len(os.sched_getaffinity(0)) - 2))
    if not torch.cuda.is_available():
        return Device("cpu", num_workers)
    torch.cuda.synchronize()
    return Device(torch.cuda.get_device_name(), num_workers)


def peak_gib() -> float | None:
    """The most memory that PyTorch had allocated in this process."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated() / 2**30


def share_of_peak(tflops: float) -> float | None:
    """MFU: of the device's dense bfloat16 peak; None where that is not known here."""
    peak = peak_tflops()
    return None if peak is None else tflops / peak


def peak_tflops() -> float | None:
    """Of `PRISM_TUNE_PEAK_TFLOPS`, or the data sheet's."""
    given = os.environ.get("PRISM_TUNE_PEAK_TFLOPS")
    if given:
        return float(given)
    name = on_device().name
    found = [peak for part, peak in _PEAK_TFLOPS.items() if part in name]
    return float(found[0]) if found else None


def measure_device() -> dict[str, Any]:
    """Versions, and what a large matrix product and a large copy reach here."""
    import importlib.metadata
    import platform

    found: dict[str, Any] = {"device": on_device().name, "python": platform.python_version()}
    for package in ("torch", "transformers", "deepspeed", "peft", "accelerate", "liger-kernel"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["peak_tflops"] = peak_tflops()
    return {**found, **_measure_ceilings()}


def _measure_ceilings() -> dict[str, float]:
    from gpu_parts.extraction import repeat

    is_cuda = torch.cuda.is_available()
    size, device = (8192, "cuda") if is_cuda else (256, "cpu")
    left, right = torch.randn(2, size, size, dtype=torch.bfloat16, device=device)
    count, seconds = repeat(lambda: left @ right, 1.0 if is_cuda else 0.1)
    source = torch.empty(2**32 if is_cuda else 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies, copied = repeat(lambda: target.copy_(source), 0.5 if is_cuda else 0.1)
    return {
        "matmul_tflops": count * 2 * size**3 / seconds / 1e12,
        "copy_gb_per_second": copies * 2 * source.numel() / copied / 1e9,
    }


def measure_nccl() -> dict[str, Any]:
    """A group of one process (NCCL; gloo on a CPU): a sum, and what it comes to."""
    from gpu_parts.extraction import repeat
    from torch import distributed

    backend, device = ("nccl", "cuda") if torch.cuda.is_available() else ("gloo", "cpu")
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29531")
    distributed.init_process_group(backend)
    values = torch.ones(2**26 if backend == "nccl" else 2**10, device=device)
    count, seconds = repeat(lambda: distributed.all_reduce(values), 0.5)
    is_right = bool((values == 1).all())
    distributed.destroy_process_group()
    if not is_right:
        raise AssertionError("all_reduce over one process changed the values")
    return {"backend": backend, "sums_per_second": count / seconds, "bytes": values.nbytes}
