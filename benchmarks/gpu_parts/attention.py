"""Attention alone: what a length that has not been seen yet costs, and one that has, by kernel.

cuDNN plans each shape before it runs it, and each thread plans for itself; packed records and
padded batches have a new length nearly every time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

_HEADS, _WIDTH = 32, 128


def run(work: Path, *, lengths: list[int], batch_size: int) -> dict[str, Any]:
    """Milliseconds forward and backward of causal records, and of padded batches with a mask.

    Args:
        work: unused.
        lengths: of the records; each is one call.
        batch_size: of the padded batches.
    """
    found: dict[str, Any] = {"cudnn": torch.backends.cudnn.version(), "torch": torch.__version__}
    found["default order"] = _default_order()
    for name, kernel in (
        ("default", None),
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("efficient", SDPBackend.EFFICIENT_ATTENTION),
    ):
        shift = 0 if name == "default" else 1 if name == "cudnn" else 2
        own = [length + shift for length in lengths]
        found[name] = {
            "causal": _both_times(kernel, own, _causal),
            "padded": _both_times(kernel, own, lambda n: _padded(batch_size, n)),
        }
    return found


def _default_order() -> Any:
    try:
        return [int(kernel) for kernel in torch._C._get_sdp_priority_order()]
    except AttributeError:
        return None


def _both_times(
    kernel: SDPBackend | None, lengths: list[int], make: Callable[[int], Any]
) -> dict[str, Any] | str:
    try:
        first = [_time(kernel, make(length)) for length in lengths]
        again = [_time(kernel, make(length)) for length in lengths]
    except RuntimeError as error:
        return str(error)[:200]
    return {
        f"{name} {phase}_ms": round(statistics.median(row[place] for row in rows) * 1000, 3)
        for name, rows in (("new length,", first), ("same length,", again))
        for place, phase in enumerate(("forward", "backward"))
    }


def _time(kernel: SDPBackend | None, given: tuple[Any, ...]) -> tuple[float, float]:
    query, key, value, mask = given
    begin = _now()
    if kernel is None:
        out = scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
    else:
        with sdpa_kernel([kernel]):
            out = scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
    middle = _now()
    out.sum().backward()
    return middle - begin, _now() - middle


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _causal(length: int) -> tuple[Any, ...]:
    return (*_tensors(1, length), None)


def _padded(batch_size: int, length: int) -> tuple[Any, ...]:
    query, key, value = _tensors(batch_size, length)
    mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    mask = mask.expand(batch_size, 1, length, length).clone()
    mask[::2, :, :, -5:] = False
    mask[..., 0] = True
    return query, key, value, mask


def _tensors(batch_size: int, length: int) -> list[torch.Tensor]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    shape = (batch_size, length, _HEADS, _WIDTH)
    return [
        torch.randn(shape, dtype=dtype, device=device).transpose(1, 2).requires_grad_()
        for _ in range(3)
    ]
