"""The benchmarks by name. A new one is a file defining `BENCHMARK`, and a line here."""

from __future__ import annotations

from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks import (
    gqa,
    llava_bench,
    mmbench,
    mmbench_cn,
    mme,
    mmmu,
    mmvet,
    pope,
    quickstart,
    scienceqa,
    seed_bench,
    textvqa,
    vizwiz,
    vqav2,
)

_MODULES = (
    *(scienceqa, vizwiz, pope, mmvet, mmbench, mmbench_cn, mme, mmmu),
    *(textvqa, gqa, vqav2, seed_bench, llava_bench, quickstart),
)

BENCHMARKS: dict[str, Benchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
