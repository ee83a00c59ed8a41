"""What the GPU ran in a step: kernels by time and by kind, the share of the time it was idle."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_NUM_ROWS = 22
_KINDS = {
    "attention": r"flash|fmha|attention|sdpa|cudnn_generated",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma|mm_|splitk",
    "dropout": r"dropout",
    "optimizer and clipping": r"multi_tensor|foreach|fused_adam",
    "copies and casts": r"memcpy|memset|copy_kernel|direct_copy|cat",
    "reductions": r"reduce|softmax|norm",
    "indexing": r"index|scatter|gather|embedding|nonzero|sort|cub",
}


@contextmanager
def profiled(found: dict[str, Any]) -> Iterator[None]:
    """Fill `found` with what the body ran."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        begin = time.perf_counter()
        yield
        if on_gpu:
            torch.cuda.synchronize()
        wall = time.perf_counter() - begin
    found["wall_ms"] = round(wall * 1000, 1)
    found.update(_sum_kernels(profiler, wall))
    found["in this process"] = [
        [event.key[:60], event.count, round(event.self_cpu_time_total / 1000, 1)]
        for event in sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    ][:_NUM_ROWS]
    found["attention operations"] = [
        [event.key[:60], event.count, round(event.cpu_time_total / 1000, 1)]
        for event in profiler.key_averages()
        if re.search(r"attention|cudnn|flash", event.key, re.IGNORECASE)
        and event.key.startswith("aten::")
    ]


def _sum_kernels(profiler: profile, wall: float) -> dict[str, Any]:
    """Milliseconds and launches of each kind; own time of the most expensive kernels."""
    kernels = [e for e in profiler.events() or () if str(e.device_type).endswith("CUDA")]
    by_name: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    by_kind: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for event in kernels:
        milliseconds = event.self_device_time_total / 1000
        for table, key in ((by_name, event.name[:110]), (by_kind, _kind(event.name))):
            table[key][0] += 1
            table[key][1] += milliseconds
    busy = sum(milliseconds for _, milliseconds in by_kind.values())
    return {
        "gpu_busy_ms": round(busy, 1),
        "gpu_idle_share": round(1 - busy / (wall * 1000), 3),
        "launches": len(kernels),
        "kinds": _order(by_kind),
        "kernels": _order(by_name)[:_NUM_ROWS],
    }


def _kind(name: str) -> str:
    for kind, pattern in _KINDS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "elementwise and others"


def _order(table: dict[str, list[float]]) -> list[list[Any]]:
    ordered = sorted(table.items(), key=lambda item: -item[1][1])
    return [[name, count, round(milliseconds, 2)] for name, (count, milliseconds) in ordered]
