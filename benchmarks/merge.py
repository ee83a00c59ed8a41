"""Is a selection over many nodes the same as one process's? A simulation of what they hand over.

    python benchmarks/merge.py                        # 10 million records on 16 nodes
    python benchmarks/merge.py --records 200000 --nodes 5

Each node has a stretch of the records, drawn block by block and never stored, in eleven sources.
PRISM: a node runs the passes of `RedundancyScan` over its own rows; between them the nodes' sums
are added. The cut: each node counts, source by source, its records by 16 bits of the score (then of
the hash that decides between equals), and all go on with the bin in which the quota ends. The
components: each node's mean and covariance (`measure_covariance`), joined as of two samples. Prints
what differs from one process over all records, and the bytes that a node sends.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.reduction import measure_covariance
from prism_tune.features.redundancy import score_redundancy
from prism_tune.features.redundancy_scan import RedundancyScan
from prism_tune.features.row_pairs import pair_rows
from prism_tune.selection.subset import cut_subset, hash_uids

BUDGET = 0.1
NUM_SOURCES = 11

_BLOCK_ROWS = 16_384
_DIGIT = 16  # bits of a key that a round of counting decides
_KEPT_BLOCKS = 16

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Keys = NDArray[np.uint64]
Sums = TypeVar("Sums", FloatArray, IntArray)


class DrawnRows:
    """Rows `start` to `stop` of a matrix that is never there as a whole (a `RowBlocks`)."""

    dtype = np.dtype(np.float32)

    def __init__(self, start: int, stop: int, width: int) -> None:
        self._start = start
        self.shape = (stop - start, width)
        self._draw = lru_cache(_KEPT_BLOCKS)(self._draw_block)

    def _draw_block(self, number: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([7, number])
        width = self.shape[1]
        rows = rng.standard_normal((_BLOCK_ROWS, width), dtype=np.float32)
        return rows + np.linspace(0, 3, width, dtype=np.float32)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """A block of rows."""
        first, last, _ = rows.indices(self.shape[0])
        at, end = self._start + first, self._start + last
        parts = []
        for number in range(at // _BLOCK_ROWS, -(-end // _BLOCK_ROWS)):
            of = number * _BLOCK_ROWS
            parts.append(self._draw(number)[max(at - of, 0) : end - of])
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float32)


class Wire:
    """Counts what is handed over."""

    def __init__(self, num_nodes: int) -> None:
        self._num_nodes = num_nodes
        self.sent = 0

    def gather(self, parts: Sequence[Sums]) -> Sums:
        """The nodes' arrays above one another; each sends its own."""
        assert len(parts) == self._num_nodes
        self.sent += parts[0].nbytes
        return np.stack(parts)

    def add(self, parts: Sequence[Sums]) -> Sums:
        """The sum of the nodes' arrays."""
        return self.gather(parts).sum(axis=0)


def main() -> None:
    """Parse the command line, select both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    num, width = arguments.records, arguments.width
    chances_G = np.arange(1, NUM_SOURCES + 1) / np.arange(1, NUM_SOURCES + 1).sum()
    sources_N = np.random.default_rng(3).choice(NUM_SOURCES, num, p=chances_G)
    bounds = np.linspace(0, num, arguments.nodes + 1).astype(int).tolist()
    nodes = [slice(a, b) for a, b in pairwise(bounds)]
    uids = [f"{n:032x}" for n in range(num)]
    wire, clock = Wire(len(nodes)), time.perf_counter()
    scores = score_on_nodes(nodes, sources_N, width, wire)
    sent_scores = wire.sent
    kept_N = cut_on_nodes(nodes, scores, sources_N, hash_uids(uids), wire)
    sent_cut = wire.sent - sent_scores
    print(f"{num:,} records, {width} wide, {len(nodes)} nodes, {NUM_SOURCES} sources; ", end="")
    print(f"{time.perf_counter() - clock:.0f} s", flush=True)
    clock = time.perf_counter()
    expected_N = score_redundancy(DrawnRows(0, num, width), groups_N=sources_N).values_N
    cut = cut_subset(
        expected_N,
        uids=uids,
        is_text_only_N=np.zeros(num, dtype=bool),
        budget=BUDGET,
        keep="low",
        groups_N=sources_N,
    )
    print(f"one process over all: {time.perf_counter() - clock:.0f} s\n")
    difference = np.abs(np.concatenate(scores) - expected_N).max() / np.abs(expected_N).max()
    print(f"largest difference of a score, of the largest score: {difference:.1e}")
    print(
        f"kept by both: {int((kept_N & cut.selected_N).sum()):,} of {int(kept_N.sum()):,} ", end=""
    )
    print(f"and {int(cut.selected_N.sum()):,}")
    print(f"a node sent {sent_scores:,} bytes for the scores, {sent_cut:,} for the cut")
    compare_components(nodes, num, width)


def score_on_nodes(
    nodes: Sequence[slice], sources_N: IntArray, width: int, wire: Wire
) -> list[FloatArray]:
    """PRISM's scores of each node's records."""
    num_groups = int(sources_N.max()) + 1
    scans = []
    for node in nodes:
        rows = DrawnRows(node.start, node.stop, width)
        pairs = pair_rows(rows.shape[0], None, None)
        sizes_G = np.bincount(sources_N[node], minlength=num_groups)
        pairs = replace(pairs, group_P=sources_N[node], size_G=sizes_G)
        scans.append(RedundancyScan(rows, pairs, "corpus", None))
    sizes_G = wire.add([scan.pairs.size_G for scan in scans])
    sums, counts = zip(*(scan.sum_rows() for scan in scans), strict=True)
    centres_GD = wire.add(sums) / np.maximum(wire.add(counts), 1)[:, None]
    for scan in scans:
        scan.centres_GD = centres_GD
    directions_GD = wire.add([scan.sum_directions() for scan in scans])
    for scan in scans:
        scan.pairs = replace(scan.pairs, size_G=sizes_G)
        scan.project(directions_GD)
    return [scan.scores_P for scan in scans]


def cut_on_nodes(
    nodes: Sequence[slice],
    scores: Sequence[FloatArray],
    sources_N: IntArray,
    hashes_N: Keys,
    wire: Wire,
) -> NDArray[np.bool_]:
    """The records with the lowest scores of each source, as many as its share of the budget."""
    quota_G, tied, missing = share_out(np.bincount(sources_N))
    keys = [(order_bits(part), hashes_N[node]) for part, node in zip(scores, nodes, strict=True)]
    sources = [sources_N[node] for node in nodes]
    kept = [np.zeros(len(part), dtype=bool) for part in scores]
    unsure = [np.ones(len(part), dtype=bool) for part in scores]
    left_G = quota_G
    for which, shift in [(w, s) for w in range(2) for s in range(64 - _DIGIT, -1, -_DIGIT)]:
        digits = [(of[which] >> np.uint64(shift)).astype(np.int64) % 2**_DIGIT for of in keys]
        counted = [
            count_digits(digit[at], source[at], len(quota_G))
            for digit, source, at in zip(digits, sources, unsure, strict=True)
        ]
        below_GB = np.cumsum(wire.add(counted), axis=1)
        border_G = (below_GB <= left_G[:, None]).sum(axis=1)  # the bin in which the quota ends
        for digit, source, at, taken in zip(digits, sources, unsure, kept, strict=True):
            taken |= at & (digit < border_G[source])
            at &= digit == border_G[source]
        before_GB = np.concatenate([np.zeros((len(quota_G), 1), dtype=np.int64), below_GB], axis=1)
        left_G = left_G - np.take_along_axis(before_GB, border_G[:, None], axis=1)[:, 0]
    if missing:  # sources with equal shares: of their next records those with the smallest hashes
        nexts = [find_next(*part, tied) for part in zip(keys, sources, kept, strict=True)]
        best = np.array([min(of_source) for of_source in zip(*nexts, strict=True)])
        wire.sent += 16 * len(tied)
        chosen = best[np.argsort(best[:, 1])[:missing]]
        for (bits, hashes), taken in zip(keys, kept, strict=True):
            taken |= np.isin(bits, chosen[:, 0]) & np.isin(hashes, chosen[:, 1])
    return np.concatenate(kept)


def share_out(sizes_G: IntArray) -> tuple[IntArray, list[int], int]:
    """Sure quotas by `cut_subset`'s order; sources tied behind them, and how many they have."""
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes_G])
    of = np.repeat(np.arange(len(sizes_G)), sizes_G)
    num_kept = round(BUDGET * len(places))
    last = np.partition(places, num_kept - 1)[num_kept - 1]
    quota_G = np.bincount(of[places < last], minlength=len(sizes_G))
    return quota_G, of[places == last].tolist(), num_kept - int(quota_G.sum())


def find_next(
    keys: tuple[Keys, Keys], sources: IntArray, kept: NDArray[np.bool_], tied: Sequence[int]
) -> list[tuple[int, int]]:
    """A node's first record that is not kept, of some sources: bits of its score, and its hash."""
    found = []
    for source in tied:
        at = np.flatnonzero((sources == source) & ~kept)
        first = at[np.lexsort((keys[1][at], keys[0][at]))[:1]]
        found += [(int(keys[0][n]), int(keys[1][n])) for n in first] or [(2**64 - 1, 2**64 - 1)]
    return found


def order_bits(scores: FloatArray) -> Keys:
    """Whole numbers in the order of the scores."""
    bits = np.ascontiguousarray(scores).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def count_digits(digits: IntArray, sources: IntArray, num_sources: int) -> IntArray:
    """How many records of each source have each digit, (G, 65536)."""
    size = 2**_DIGIT
    return np.bincount(sources * size + digits, minlength=num_sources * size).reshape(-1, size)


def compare_components(nodes: Sequence[slice], num_rows: int, width: int) -> None:
    """The variances of the joined covariance beside those of one process."""
    mean_D, spread_DD, total = np.zeros(width), np.zeros((width, width)), 0
    for node in nodes:
        number = node.stop - node.start
        own_D, own_DD, _ = measure_covariance(
            DrawnRows(node.start, node.stop, width), np.ones(number)
        )
        apart_D = own_D - mean_D
        between = total * number / (total + number)
        spread_DD += number * own_DD + between * np.outer(apart_D, apart_D)
        mean_D, total = mean_D + apart_D * number / (total + number), total + number
    joined = np.linalg.eigvalsh(spread_DD / total)
    _, all_DD, _ = measure_covariance(DrawnRows(0, num_rows, width), np.ones(num_rows))
    alone = np.linalg.eigvalsh(all_DD)
    print(
        f"largest difference of a component's variance: {np.abs(joined / alone - 1).max():.1e}; ",
        end="",
    )
    print(f"a node sends {8 * width * (width + 1) + 8:,} bytes")


if __name__ == "__main__":
    main()
