"""Speed and memory of the redundancy scores, beside numpy's own sum and `np.corrcoef`.

    python benchmarks/scoring.py                       # 624,610 x 4,096 float16: 5.1 GB on disk
    python benchmarks/scoring.py --rows 20000          # a quick look
    python benchmarks/scoring.py --features FILE       # a .npy that is there
    python benchmarks/scoring.py --only-corrcoef

Prints two tables. (1) A float16 memory map of random features: seconds to sum it once with numpy
(warm, one thread), seconds for `redundancy_scores` (a thread for each core), their ratio (goal, by
the clock: at most 2 for corpus), and the growth of anonymous memory while scoring (goal: at most 1
GiB). (2) `np.corrcoef` with the row means of its N x N matrix against
`redundancy_scores(centering="pearson")`, which gives the same numbers: seconds of one thread each,
by the clock (of the scores the best of 3), how they grow with N (the exponent between two rows),
and how much faster the scores are (goal: 60 times at N = 20,000), by the clock and in CPU seconds.

One thread, because NumPy's X @ X.T dies of a segmentation fault inside OpenBLAS with two threads at
N = 20,000 (numpy issue 19685); with one it runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is imported; the scores use no BLAS

import numpy as np

from prism_tune.features.redundancy import redundancy_scores

_BLOCK_ROWS = 4096
_POLL_SECONDS = 0.02
_SIZES = (2_500, 5_000, 10_000, 20_000)  # each twice the one before

Value = TypeVar("Value")


def main() -> None:
    """Parse the command line, run both measurements, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=624_610)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--groups", type=int, default=10, help="sources, for scope per_source")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts")
    parser.add_argument("--only-corrcoef", action="store_true", help="table 2 alone")
    parser.add_argument("--features", type=Path, default=None, help="a .npy in place of a draw")
    parser.add_argument("--folder", type=Path, default=None, help="where the file is drawn")
    arguments = parser.parse_args()
    if arguments.features is not None:
        features = np.load(arguments.features, mmap_mode="r")
        measure_streaming(features, arguments.groups, arguments.repeats)
    elif not arguments.only_corrcoef:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            path = Path(folder) / "features.npy"
            features = draw_features(path, arguments.rows, arguments.width)
            measure_streaming(features, arguments.groups, arguments.repeats)
    measure_corrcoef(arguments.width)


def measure_streaming(features: np.memmap, num_groups: int, repeats: int) -> None:
    """Table 1."""
    num_rows, width = features.shape
    groups = np.random.default_rng(1).integers(0, num_groups, num_rows)
    sums = [timed(lambda: np.sum(features, dtype=np.float32)) for _ in range(repeats + 1)]
    sum_seconds = np.min([took for took, _ in sums[1:]], axis=0)  # the first one warms the file
    print(f"\n{num_rows:,} x {width:,} float16 ({features.nbytes / 1e9:.2f} GB)\n")
    print("| what | seconds: clock, CPU | x sum: clock, CPU | anonymous memory, MiB |")
    print("|---|---:|---:|---:|")
    print(f"| numpy sum, warm | {sum_seconds[0]:.2f}, {sum_seconds[1]:.2f} | 1, 1 | |", flush=True)
    runs: list[tuple[str, Callable[[], object]]] = [
        ("corpus", lambda: redundancy_scores(features)),
        ("pearson", lambda: redundancy_scores(features, centering="pearson")),
        ("none", lambda: redundancy_scores(features, centering="none")),
        (f"corpus, {num_groups} groups", lambda: redundancy_scores(features, groups_N=groups)),
    ]
    for name, run in runs:
        best = [timed(run) for _ in range(repeats)]
        seconds, peak = np.min([took for took, _ in best], axis=0), max(peak for _, peak in best)
        ratio = seconds / sum_seconds
        print(
            f"| {name} | {seconds[0]:.2f}, {seconds[1]:.2f} | {ratio[0]:.2f}, {ratio[1]:.2f} | "
            f"{peak / 2**20:.0f} |",
            flush=True,
        )


def measure_corrcoef(width: int) -> None:
    """Table 2."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the scores take a thread per core
    print(f"\nwidth {width:,}, float32, one thread each, seconds by the clock\n")
    print(
        "| N | np.corrcoef | grows | redundancy_scores | grows | faster: clock, CPU | difference |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    before = None
    for num_rows in _SIZES:
        features = np.random.default_rng(0).standard_normal((num_rows, width), dtype=np.float32)
        slow, expected = timed_value(lambda rows=features: correlate_all(rows))
        fast, scores = min(
            (
                timed_value(lambda rows=features: redundancy_scores(rows, centering="pearson"))
                for _ in range(3)
            ),
            key=lambda measured: measured[0][0],
        )
        took = np.array([slow[0], fast[0]])
        grows = ["", ""] if before is None else [f"N^{n:.1f}" for n in np.log2(took / before)]
        before = took
        difference = np.abs(scores - expected).max()
        print(
            f"| {num_rows:,} | {slow[0]:.2f} | {grows[0]} | {fast[0]:.2f} | {grows[1]} | "
            f"{slow[0] / fast[0]:.0f}x, {slow[1] / fast[1]:.0f}x | {difference:.0e} |",
            flush=True,
        )


def correlate_all(features: np.ndarray) -> np.ndarray:
    """Mean correlation of each row with the others, by the N x N matrix."""
    matrix = np.corrcoef(features)
    return (matrix.sum(axis=1) - 1) / (len(features) - 1)


def draw_features(path: Path, num_rows: int, width: int) -> np.memmap:
    """Random features in a narrow cone, written block by block, opened as a memory map."""
    rng = np.random.default_rng(0)
    mean = 2 * rng.standard_normal(width, dtype=np.float32)
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(num_rows, width))
    for start in range(0, num_rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, num_rows)
        mapped[start:stop] = rng.standard_normal((stop - start, width), dtype=np.float32) + mean
    mapped.flush()
    return np.load(path, mmap_mode="r")


def timed(run: Callable[[], object]) -> tuple[tuple[float, float], int]:
    """Seconds (clock, CPU), and by how many bytes anonymous memory grew at most."""
    peak = [before := read_anonymous_bytes()]
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_SECONDS):
            peak[0] = max(peak[0], read_anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, _ = timed_value(run)
    finished.set()
    watcher.join()
    return seconds, peak[0] - before


def timed_value(run: Callable[[], Value]) -> tuple[tuple[float, float], Value]:
    """Seconds by the clock and of this process's CPU time, and the value."""
    clock, cpu = time.perf_counter(), time.process_time()
    value = run()
    return (time.perf_counter() - clock, time.process_time() - cpu), value


def read_anonymous_bytes() -> int:
    """This process's resident anonymous memory (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
