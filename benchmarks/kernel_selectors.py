"""Do the kernel selectors drop near-copies and leave noise alone at every size? Time and memory.

    python benchmarks/kernel_selectors.py                      # 800 to 80,000 records
    python benchmarks/kernel_selectors.py --sizes 624610       # LLaVA-665K's image records
    python benchmarks/kernel_selectors.py --draw tight

Draws float16 features in a memory map: 200 concepts of Zipf sizes; 10 % of the records are
near-copies of another 10 %; 3 % are isolated noise. `loose` concepts are about as wide as the real
features of the quickstart, `tight` ones are ten times as dense; the mean kernel at h = 0.1 is
printed (quickstart: 0.0014). Each scorer keeps 10 % through its own `score`, as the stage calls it,
where one pool is drawn in a process of its own (else memory is what the process has grown to).
Prints, per size and scorer: pairs kept whole among pairs touched, the
share of noise in the subset, the share kept of one record's many copies (1 % of the records),
seconds and the growth of anonymous memory. Options of kernel_repulsion have rows of their own;
texts are drawn for those that read some (a copy says what its original says), and gains that
the texts tell, measured on 3 % of the records. Goals: pairs at most a third of Random's, noise at
most twice its share in the pool.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.kernels.density import evaluate_kernel
from prism_tune.selection.scorers.scorer import ScoringContext
from prism_tune.selection.subset import cut_subset

SIZES = (800, 3_300, 20_000, 80_000)
_GAIN = {"gamma": 2.0}
_DEFICIT = {"alpha": 1.0, "deficit": 1.0}
ROWS: dict[str, tuple[str, dict[str, float]]] = {
    "random": ("random", {}),
    "kernel_repulsion": ("kernel_repulsion", {}),
    "kernel_prism": ("kernel_prism", {}),
    "gain": ("kernel_repulsion", _GAIN),
    "joint": ("kernel_repulsion", {"text_weight": 0.5}),
    "deficit": ("kernel_repulsion", {**_DEFICIT, "beta": 0.0}),
    "deficit_repulsion": ("kernel_repulsion", _DEFICIT),
    "all": ("kernel_repulsion", {**_GAIN, **_DEFICIT, "text_weight": 0.5}),
}
"""Scorers and their options; quotas need sources, and this pool is one."""
DEFAULT_ROWS = ("random", "kernel_repulsion", "kernel_prism")
BUDGET = 0.1
WIDTHS = {"loose": (0.4, 1.0), "tight": (0.1, 0.4)}

_WIDTH = 128
_CONCEPTS = 200
_COPY_NOISE = 0.03
_TOPICS = 100
_TEXT_WIDTH = 64
_MEASURED = 0.03
_SMALL = 20_000
"""Below, several pools are drawn and the counts added up: a few dozen pairs say little."""
_BLOCK_ROWS = 65_536

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """A pool whose copies and noise are known: `pairs_P2` original and copy.

    `texts` is the file of a row of each record's text.
    """

    path: Path
    num_rows: int
    pairs_P2: IntArray
    noise: IntArray
    stack: IntArray
    texts: Path | None = None


@dataclass(frozen=True)
class Counts:
    """What a subset holds, and what it took."""

    whole: int
    touched: int
    noise: int
    kept: int
    of_stack: int
    stack: int
    seconds: float
    peak_bytes: int


def main() -> None:
    """Parse the command line, draw, select and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--draw", choices=sorted(WIDTHS), default="loose")
    parser.add_argument("--rows", nargs="+", choices=sorted(ROWS), default=list(DEFAULT_ROWS))
    parser.add_argument("--folder", type=Path, default=None, help="where features are drawn")
    arguments = parser.parse_args()
    print(f"\n{_WIDTH} wide, {arguments.draw} concepts, {BUDGET:.0%} kept\n")
    print("| records | mean kernel | scorer | pairs kept whole | noise | stack kept | s | MiB |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|")
    for size in arguments.sizes:
        pools = max(1, min(8, _SMALL // size))
        found: dict[str, list[Counts]] = {name: [] for name in arguments.rows}
        means = []
        for seed in range(pools):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                drawn = draw_pool(Path(folder) / "features.npy", size, arguments.draw, seed)
                means.append(mean_kernel_of(drawn))
                for name in arguments.rows:
                    run = select if pools > 1 else in_a_process
                    found[name].append(run(drawn, name, seed))
        for name, counts in found.items():
            print_row(size, float(np.mean(means)), name, counts)


def draw_pool(path: Path, num_rows: int, draw: str, seed: int) -> Drawn:
    """Write the features, and say which rows are what."""
    rng = np.random.default_rng(seed)
    num_copies, num_noise, num_stack = num_rows // 10, round(0.03 * num_rows), num_rows // 100
    num_plain = num_rows - num_copies - num_noise
    spectrum_D = (1 + np.arange(_WIDTH)) ** -0.5
    spectrum_D /= np.linalg.norm(spectrum_D)
    centres_CD = rng.normal(size=(_CONCEPTS, _WIDTH)) * spectrum_D
    chances_C = 1 / (1 + np.arange(_CONCEPTS))
    widths_C = rng.uniform(*WIDTHS[draw], size=_CONCEPTS)
    concept = rng.choice(_CONCEPTS, num_plain, p=chances_C / chances_C.sum())
    rows = np.empty((num_rows, _WIDTH), dtype=np.float32)
    for start in range(0, num_plain, _BLOCK_ROWS):
        of = concept[start : min(start + _BLOCK_ROWS, num_plain)]
        around = widths_C[of, None] * spectrum_D * rng.normal(size=(len(of), _WIDTH))
        rows[start : start + len(of)] = centres_CD[of] + around
    drawn = rng.choice(num_plain, num_copies + num_stack, replace=False)
    originals, stack = drawn[:num_copies], drawn[num_copies:]
    rows[stack] = copy_of(np.repeat(rows[stack[:1]], num_stack, axis=0), rng)
    rows[num_plain : num_plain + num_copies] = copy_of(rows[originals], rng)
    noise = rng.normal(size=(num_noise, _WIDTH))
    rows[num_plain + num_copies :] = 1.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    order = rng.permutation(num_rows)
    place = np.argsort(order)
    features = np.lib.format.open_memmap(path, "w+", np.float16, rows.shape)
    for start in range(0, num_rows, _BLOCK_ROWS):
        features[start : start + _BLOCK_ROWS] = rows[order[start : start + _BLOCK_ROWS]]
    features.flush()
    copies = np.arange(num_plain, num_plain + num_copies)
    topics_TD = rng.normal(size=(_TOPICS, _TEXT_WIDTH))
    texts = topics_TD[rng.integers(0, _TOPICS, num_rows)].astype(np.float32)
    texts += rng.normal(size=texts.shape).astype(np.float32)
    texts[stack], texts[copies] = texts[stack[:1]], texts[originals]
    texts_path = path.with_name("texts.npy")
    np.save(texts_path, texts[order].astype(np.float16))
    pairs_P2 = place[np.stack([originals, copies], axis=1)]
    noise_rows = place[num_plain + num_copies :]
    return Drawn(path, num_rows, pairs_P2, noise_rows, place[stack], texts_path)


def copy_of(rows: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Near-copies: off by 3 % of the row's length."""
    lengths = _COPY_NOISE * np.linalg.norm(rows, axis=1, keepdims=True) / _WIDTH**0.5
    return rows + (lengths * rng.normal(size=rows.shape)).astype(np.float32)


def mean_kernel_of(drawn: Drawn) -> float:
    """Between 1,000 records, centred and of norm 1, at h = 0.1."""
    rows = np.load(drawn.path, mmap_mode="r")[:1000].astype(np.float64)
    rows -= rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    num = len(rows)
    return float((evaluate_kernel(rows, rows, 0.1).sum() - num) / (num * (num - 1)))


def in_a_process(drawn: Drawn, scorer: str, seed: int) -> Counts:
    """The counts of one selection, whose memory no other has touched."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(select, (drawn, scorer, seed))


def select(drawn: Drawn, row: str, seed: int) -> Counts:
    """Score and cut, and count what was kept."""
    scorer, options = ROWS.get(row, (row, {}))
    selection = {"scorer": scorer, "budget": BUDGET, "options": options}
    values = {"name": "drawn", "model": {"path": "none"}, "data": {"records": "none.json"}}
    config = Config.model_validate({**values, "selection": selection, "seed": seed})
    uids = [f"record-{n}" for n in range(drawn.num_rows)]
    everyone = np.arange(drawn.num_rows)
    context = ScoringContext(
        config=SCORERS[scorer].complete(config),
        pool=cast(Pool, SimpleNamespace(uids=uids, is_text_only_N=np.zeros(len(uids), dtype=bool))),
        records_M=everyone,
        groups_M=None,
        features_UD=np.load(drawn.path, mmap_mode="r"),
        row_M=everyone,
        **({} if drawn.texts is None else read_texts(drawn.texts, everyone)),
    )
    before, start = anonymous_bytes("VmHWM", "RssFile"), time.perf_counter()
    scores_M = SCORERS[scorer].score(context).values_M
    seconds = time.perf_counter() - start
    peak = max(0, anonymous_bytes("VmHWM", "RssFile") - before)
    cut = cut_subset(
        scores_M,
        uids=uids,
        is_text_only_N=np.zeros(drawn.num_rows, dtype=bool),
        budget=BUDGET,
        keep="low",
    )
    kept_P = cut.selected_N[drawn.pairs_P2].sum(axis=1)
    return Counts(
        int((kept_P == 2).sum()),
        int((kept_P > 0).sum()),
        int(cut.selected_N[drawn.noise].sum()),
        int(cut.selected_N.sum()),
        int(cut.selected_N[drawn.stack].sum()),
        len(drawn.stack),
        seconds,
        peak,
    )


def read_texts(path: Path, row_M: IntArray) -> dict[str, Any]:
    """The texts' rows, and of 3 % of the records losses of which these tell about half."""
    texts = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(len(texts))
    gains = np.tanh(texts[:, 0].astype(np.float64)) + 0.7 * rng.normal(size=len(texts))
    gains[rng.random(len(texts)) > max(_MEASURED, 200 / len(texts))] = np.nan
    losses = {"turn_nll": np.ones(len(texts)), "blind_turn_nll": 1 + gains}
    return {"more_rows": {"text_sif": (texts, row_M)}, "measured": losses}


def anonymous_bytes(peak: str, mapped: str) -> int:
    """The largest resident set so far without the mapped files of now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * (int(fields[peak].split()[0]) - int(fields[mapped].split()[0]))


def print_row(size: int, mean: float, name: str, counts: list[Counts]) -> None:
    """One row of the table, the pools' counts added up."""
    whole, touched, noise, kept, of_stack, stack = (
        sum(getattr(count, field) for count in counts)
        for field in ("whole", "touched", "noise", "kept", "of_stack", "stack")
    )
    seconds = np.mean([count.seconds for count in counts])
    peak = max(count.peak_bytes for count in counts) / 2**20
    print(
        f"| {size:,} | {mean:.4f} | {name} | {whole / touched:.3f} ({whole:,} of {touched:,}) | "
        f"{noise / kept:.3f} | {of_stack / stack:.3f} | {seconds:.1f} | {peak:,.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
