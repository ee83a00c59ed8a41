"""Speed and memory of the redundancy scores, beside numpy's own sum and `np.corrcoef`.

    python benchmarks/scoring.py                       # 624,610 x 4,096 float16: 5.1 GB on disk
    python benchmarks/scoring.py --rows 20000          # a quick look
    python benchmarks/scoring.py --corrcoef 5000 10000 20000

Prints two tables. (1) A float16 memory map of random features: seconds to sum it once with numpy
(warm), seconds for `redundancy_scores`, their ratio (goal: at most 4), and the
growth of anonymous memory while scoring (goal: at most 1 GiB). (2) `np.corrcoef` with the row means
of its N x N matrix against `redundancy_scores(centering="pearson")`, which gives the same numbers.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prism_tune.selection.scoring import redundancy_scores

_BLOCK_ROWS = 4096
_POLL_SECONDS = 0.02


def main() -> None:
    """Parse the command line, run both measurements, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=624_610)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--groups", type=int, default=10, help="sources, for scope per_source")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts")
    parser.add_argument("--corrcoef", type=int, nargs="*", default=[5_000, 10_000, 20_000])
    parser.add_argument("--folder", type=Path, default=None, help="where the file is drawn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure_streaming(
            Path(folder), arguments.rows, arguments.width, arguments.groups, arguments.repeats
        )
    measure_corrcoef(arguments.corrcoef, arguments.width)


def measure_streaming(
    folder: Path, num_rows: int, width: int, num_groups: int, repeats: int
) -> None:
    """Table 1."""
    features = draw_features(folder / "features.npy", num_rows, width)
    groups = np.random.default_rng(1).integers(0, num_groups, num_rows)
    sum_seconds = min(timed(lambda: np.sum(features, dtype=np.float32))[0] for _ in range(repeats))
    print(f"\n{num_rows:,} x {width:,} float16 ({features.nbytes / 1e9:.2f} GB)\n")
    print("| what | seconds | x sum | anonymous memory, MiB |")
    print("|---|---:|---:|---:|")
    print(f"| numpy sum, warm | {sum_seconds:.2f} | 1.0 | |")
    runs: list[tuple[str, Callable[[], object]]] = [
        ("corpus", lambda: redundancy_scores(features)),
        ("pearson", lambda: redundancy_scores(features, centering="pearson")),
        ("none", lambda: redundancy_scores(features, centering="none")),
        (f"corpus, {num_groups} groups", lambda: redundancy_scores(features, groups_N=groups)),
    ]
    for name, run in runs:
        best = [timed(run) for _ in range(repeats)]
        seconds, peak = min(best)[0], max(peak for _, peak in best)
        print(f"| {name} | {seconds:.2f} | {seconds / sum_seconds:.1f} | {peak / 2**20:.0f} |")


def measure_corrcoef(sizes: list[int], width: int) -> None:
    """Table 2."""
    if not sizes:
        return
    print(f"\nwidth {width:,}, float32\n")
    print("| N | np.corrcoef, s | redundancy_scores, s | faster | largest difference |")
    print("|---:|---:|---:|---:|---:|")
    for num_rows in sizes:
        features = np.random.default_rng(0).standard_normal((num_rows, width), dtype=np.float32)
        slow, expected = timed_value(lambda rows=features: correlate_all(rows))
        fast, scores = timed_value(
            lambda rows=features: redundancy_scores(rows, centering="pearson")
        )
        difference = np.abs(scores - expected).max()
        print(f"| {num_rows:,} | {slow:.2f} | {fast:.2f} | {slow / fast:.0f}x | {difference:.0e} |")


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


def timed(run: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and by how many bytes anonymous memory grew at most."""
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


def timed_value(run: Callable[[], object]) -> tuple[float, object]:
    """Seconds and the value."""
    start = time.perf_counter()
    value = run()
    return time.perf_counter() - start, value


def read_anonymous_bytes() -> int:
    """This process's resident anonymous memory (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
