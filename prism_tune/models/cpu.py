"""What this machine's CPU computes in, asked without loading anything."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
_CPUINFO = Path("/proc/cpuinfo")


@lru_cache(maxsize=1)
def bf16_instructions() -> tuple[str, ...] | None:
    """Those that multiply bfloat16, by the kernel's names.

    Without one torch's products of bfloat16 matrices are 3 to 50 times slower than of float32 (the
    most where neither is transposed, as in a backward pass: AVX2, torch 2.13,
    benchmarks/RESULTS.md).

    Returns:
        None where the system does not say.
    """
    try:
        flags = set(_CPUINFO.read_text().split())
    except OSError:
        return None
    return tuple(name for name in _BF16_INSTRUCTIONS if name in flags)
