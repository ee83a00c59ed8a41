"""The benchmarks by name. A new one is a file defining `BENCHMARK`, and a line here."""

from __future__ import annotations

from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks import (
    mmbench,
    mmbench_cn,
    mme,
    mmmu,
    mmvet,
    pope,
    quickstart,
    scienceqa,
    vizwiz,
)

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (scienceqa, vizwiz, pope, mmvet, mmbench, mmbench_cn, mme, mmmu, quickstart)
}
