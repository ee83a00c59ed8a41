"""Seconds and memory of every selector once its evidence is there, and how they grow.

    python benchmarks/selectors_at_scale.py --features FILE            # all of it: hours
    python benchmarks/selectors_at_scale.py --features FILE --sizes 10000 50000 --scorers prism
    python benchmarks/selectors_at_scale.py --features FILE --scope global

Draws FILE where it is not there: 624,610 x 4,096 float16 (5.1 GB) of 1,000 concepts of Zipf sizes
in 256 dimensions, turned into 4,096 and blurred. A pool of N has the first N rows, each an image
record of its own, in LLaVA-665K's eleven sources in proportion. Methods that read features get the
memory map, as `features_file` and `select_rows` give it; the others get its columns as evidence of
the real width and type (losses are drawn). Each method runs through its own `score`, then the cut
to 10 %, in a process of its own; the covariance of the features and its eigenvectors, with which
most of them begin, are computed once for each size, kept beside FILE, and the time they took is
added to each method's (the column "of it" has these CPU seconds). Prints seconds by the clock and
of CPU, the growth of anonymous memory, and the exponents of CPU seconds: from the size before, and
from the smallest. Goals: at most 1.1 from 10,000 to 624,610; 1.6 where clustering is the method.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scoring import timed

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.features import reduction
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.scorer import ScoringContext
from prism_tune.selection.subset import cut_subset

SIZES = (10_000, 50_000, 200_000, 624_610)
SOURCES = (
    57_669, 23_240, 76_803, 82_783, 8_998, 66_160, 48_447, 86_417, 72_140, 80_000, 21_953,
)  # fmt: skip
"""Image records of LLaVA-665K, source by source."""
WIDTHS = {
    "coincide": ("attention_outputs", 0, 1280),
    "datatailor": ("state_spectra", 2, 4096),
    "rds_plus": ("weighted_states", 0, 4096),
    "tive": ("gradient_sketches", 1, 4096),
    "icons_heldout": ("gradient_sketches", 1, 4096),
    "less_heldout": ("gradient_sketches", 1, 4096),
    "self_filter_static": ("joint_embeddings", 0, 1536),
}
"""Evidence other than features: its name, the numbers in front of the vector, its width."""
SCORER_NAMES = (
    "random", "prism", "alignment", "leverage", "scalselect", "kernel_prism", "kernel_repulsion",
    "semdedup", "presel", "kcenter", "kmeanspp", "d2", *WIDTHS,
)  # fmt: skip
BUDGET = 0.1

_CONCEPTS, _LATENT, _WIDTH = 1000, 256, 4096
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Took:
    """What one selection took."""

    seconds: float
    cpu_seconds: float
    remembered: float
    peak_bytes: int


def main() -> None:
    """Parse the command line, draw, select, print a row for each size and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True, help="drawn where it is not there")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--scorers", nargs="+", default=list(SCORER_NAMES), choices=SCORER_NAMES)
    parser.add_argument("--scope", choices=("per_source", "global"), default="per_source")
    arguments = parser.parse_args()
    if not arguments.features.exists():
        draw_features(arguments.features, max(arguments.sizes))
    print(f"\n{_WIDTH:,} wide, {arguments.scope}, {BUDGET:.0%} kept\n")
    print("| scorer | records | s | CPU s | of it | MiB | grows | from the smallest |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for scorer in arguments.scorers:
        found: dict[int, Took] = {}
        for size in arguments.sizes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                task = (arguments.features, scorer, size, arguments.scope)
                found[size] = pool.apply(select, task)
            print_row(scorer, found)


def print_row(scorer: str, found: Mapping[int, Took]) -> None:
    """The last size found, beside the one before and the first."""
    sizes = list(found)
    took = found[sizes[-1]]
    grows = [
        f"N^{np.log(took.cpu_seconds / found[n].cpu_seconds) / np.log(sizes[-1] / n):.2f}"
        for n in (sizes[-2:-1] + sizes[:1])[: 2 * (len(sizes) > 1)]
    ] or ["", ""]
    print(
        f"| {scorer} | {sizes[-1]:,} | {took.seconds:.1f} | {took.cpu_seconds:.1f} | "
        f"{took.remembered:.1f} | {took.peak_bytes / 2**20:,.0f} | {grows[0]} | {grows[1]} |",
        flush=True,
    )


def draw_features(path: Path, num_rows: int) -> None:
    """Concepts of Zipf sizes in few dimensions, turned into many and blurred, block by block."""
    rng = np.random.default_rng(0)
    spectrum_L = (1 + np.arange(_LATENT, dtype=np.float32)) ** -0.5
    centres_CL = rng.standard_normal((_CONCEPTS, _LATENT), dtype=np.float32) * spectrum_L
    chances_C = 1 / (1 + np.arange(_CONCEPTS))
    turn_LD = rng.standard_normal((_LATENT, _WIDTH), dtype=np.float32) / _LATENT**0.5
    mean_D = 2 * rng.standard_normal(_WIDTH, dtype=np.float32)
    part = path.with_suffix(".part")
    mapped = np.lib.format.open_memmap(part, "w+", np.float16, (num_rows, _WIDTH))
    for start in range(0, num_rows, _BLOCK_ROWS):
        number = min(_BLOCK_ROWS, num_rows - start)
        of = rng.choice(_CONCEPTS, number, p=chances_C / chances_C.sum())
        around = 0.5 * rng.standard_normal((number, _LATENT), dtype=np.float32) * spectrum_L
        blur = 0.05 * rng.standard_normal((number, _WIDTH), dtype=np.float32)
        mapped[start : start + number] = (centres_CL[of] + around) @ turn_LD + mean_D + blur
    mapped.flush()
    part.rename(path)


class DrawnRows:
    """Evidence of one row a record (a `RowBlocks`): numbers in front, then columns of the file."""

    dtype = np.dtype(np.float32)

    def __init__(self, front_NF: NDArray[np.float32], features_ND: RowBlocks, width: int) -> None:
        self._front_NF = front_NF
        self._features_ND = features_ND
        self._width = width
        self.shape = (len(front_NF), front_NF.shape[1] + width)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """A block of rows."""
        front = self._front_NF[rows]
        block = np.empty((len(front), self.shape[1]), dtype=np.float32)
        block[:, : front.shape[1]] = front
        block[:, front.shape[1] :] = self._features_ND[rows][:, : self._width]
        return block


class DrawnPool:
    """What scorers ask of a pool, without files."""

    def __init__(self, num_records: int) -> None:
        rng = np.random.default_rng(1)
        shares = np.array(SOURCES) / sum(SOURCES)
        codes = np.arange(num_records) % len(SOURCES)
        codes[len(SOURCES) :] = rng.choice(len(SOURCES), num_records - len(SOURCES), p=shares)
        self.uids = [f"{n:032x}" for n in range(num_records)]
        self.sources = [f"source-{code:02d}" for code in codes.tolist()]
        self._turns = (2 * rng.integers(1, 6, num_records)).tolist()

    def __getitem__(self, index: int) -> SimpleNamespace:
        """What is asked of a record."""
        return SimpleNamespace(source=self.sources[index], turns=range(self._turns[index]))


def select(path: Path, scorer: str, num_records: int, scope: str) -> Took:
    """Score and cut, watched."""
    context = describe(path, scorer, num_records, scope)
    pool = cast(DrawnPool, context.pool)
    memory = Memory(path.with_name(f"{path.stem}-{num_records}"))
    for name in ("measure_covariance", "find_directions"):
        setattr(reduction, name, memory.wrap(getattr(reduction, name)))
    keep = context.config.selection.keep
    assert keep is not None

    def score_and_cut() -> None:
        cut = cut_subset(
            SCORERS[scorer].score(context).values_M,
            uids=pool.uids,
            is_text_only_N=np.zeros(num_records, dtype=bool),
            budget=BUDGET,
            keep=keep,
            groups_N=context.groups_M,
        )
        assert int(cut.selected_N.sum()) == round(BUDGET * num_records)

    seconds, grown = timed(score_and_cut)
    return Took(*(np.array(seconds) + memory.saved).tolist(), float(memory.saved[1]), grown)


class Memory:
    """What was computed of one pool before, by function and plain arguments.

    `saved` are the seconds (clock, CPU) that it took then.
    """

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self.saved = np.zeros(2)

    def wrap(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """A function that looks into the file first."""

        def remember(*given: Any) -> Any:
            plain = [str(one) for one in given if isinstance(one, int | type(None))]
            path = self._stem.with_name("-".join([self._stem.name, compute.__name__, *plain]))
            if path.exists():
                took, found = pickle.loads(path.read_bytes())
                self.saved += took
                return found
            clock, cpu = time.perf_counter(), time.process_time()
            found = compute(*given)
            took = np.array([time.perf_counter() - clock, time.process_time() - cpu])
            path.write_bytes(pickle.dumps((took, found)))
            return found

        return remember


def describe(path: Path, scorer: str, num_records: int, scope: str) -> ScoringContext:
    """What the stage would hand to the scorer."""
    options = {"model": "clip"} if scorer == "self_filter_static" else {}
    selection = {"scorer": scorer, "budget": BUDGET, "scope": scope, "options": options}
    tree = {"name": "drawn", "model": {"path": "none"}, "data": {"records": "none.json"}}
    config = SCORERS[scorer].complete(Config.model_validate({**tree, "selection": selection}))
    features_ND = np.load(path, mmap_mode="r")[:num_records]
    everyone = np.arange(num_records)
    pool = DrawnPool(num_records)
    rng = np.random.default_rng(2)
    more: dict[str, tuple[RowBlocks, NDArray[np.int64]]] = {}
    given: dict[str, Any] = {}
    if scorer in WIDTHS:
        name, num_front, width = WIDTHS[scorer]
        front_NF = rng.uniform(0.1, 1.0, (num_records, num_front)).astype(np.float32)
        more[name] = DrawnRows(front_NF, features_ND, width), everyone
    else:
        given = {"features_UD": features_ND, "row_M": everyone}
    losses = ("nll", "unasked_nll")
    return ScoringContext(
        config=config,
        pool=cast(Pool, pool),
        records_M=everyone,
        groups_M=np.array(pool.sources) if config.selection.scope == "per_source" else None,
        measured={name: rng.gamma(4.0, 0.5, num_records) for name in losses},
        more_rows=more,
        **given,
    )


if __name__ == "__main__":
    main()
