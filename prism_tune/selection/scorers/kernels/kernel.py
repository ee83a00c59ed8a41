"""The RBF kernel over a pool: what kernel_prism and kernel_repulsion share.

Features go in; short rows, the bandwidth and the densities come out.

Shape legend: M records to be scored, U feature rows, P pairs of a feature row and a group,
L landmarks of a group, K components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count
from prism_tune.features.reduction import ReducedFeatures, reduce_features
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.row_pairs import RowPairs
from prism_tune.selection.scorer_options import ScorerOptions
from prism_tune.selection.scorers.kernels.density import (
    FloatArray,
    IntArray,
    choose_bandwidth,
    mean_kernel,
)

SAMPLE_ROWS = 1000
"""Distinct features that a bandwidth is chosen by."""


class KernelOptions(ScorerOptions):
    """The kernel in `selection.options`.

    `bandwidth` is h, a *squared* length; "median" is a tenth of the median squared distance,
    "nearest" the median squared distance to the nearest neighbour, both among up to 1,000 distinct
    features. `num_landmarks` is how many records of a group stand for all in its densities.
    """

    bandwidth: Annotated[float, Field(gt=0, strict=True)] | Literal["median", "nearest"] = Field(
        default="median", description="a positive number, median or nearest"
    )
    num_landmarks: Count = 2048
    num_components: Count = 64
    whitening: bool = False


@dataclass(frozen=True)
class KernelGroup:
    """The records of one group, and its rows in an order that is no accident of the pool's.

    Attributes:
        records: the records, by hash.
        row_N: of each record, its row.
        values_PK: the rows, by the smallest hash among their records.
        counts_P: how many records have each.
    """

    records: IntArray
    row_N: IntArray
    values_PK: FloatArray
    counts_P: IntArray


@dataclass(frozen=True)
class Kernel:
    """exp(-|x - y|^2 / 2h) between the records of a group."""

    pairs: RowPairs
    reduced: ReducedFeatures
    order_M: IntArray
    bandwidth: float
    num_landmarks: int

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What the manifest says."""
        return {**self.reduced.diagnostics, "bandwidth": self.bandwidth}

    def groups(self) -> Iterator[KernelGroup]:
        """Group by group."""
        pair_M = self.pairs.of_record_N
        assert pair_M is not None
        group_M = self.pairs.group_P[pair_M[self.order_M]]
        by_group = self.order_M[np.argsort(group_M, kind="stable")]
        for records in np.split(by_group, np.cumsum(self.pairs.size_G)[:-1]):
            members, first, place_N = np.unique(
                pair_M[records], return_index=True, return_inverse=True
            )
            by_hash = np.argsort(first)
            row_N = np.argsort(by_hash)[place_N]
            at = members[by_hash]
            yield KernelGroup(records, row_N, self.reduced.values_PK[at], self.pairs.count_P[at])

    def densities(self) -> FloatArray:
        """The mean kernel of every record with the others of its group, (M,)."""
        densities_M = np.zeros(len(self.order_M))
        for group in self.groups():
            landmarks_L = group.row_N[: self.num_landmarks]
            density_P = mean_kernel(group.values_PK, group.counts_P, landmarks_L, self.bandwidth)
            densities_M[group.records] = density_P[group.row_N]
        return densities_M


def fit_kernel(
    features_UD: RowBlocks, pairs: RowPairs, hashes_M: NDArray[np.uint64], options: KernelOptions
) -> Kernel:
    """Reduce the features and choose the bandwidth.

    Args:
        features_UD: one row per distinct feature.
        pairs: which records share which rows and groups.
        hashes_M: of the records, without a seed: those with the smallest are the landmarks, and the
            sample that a bandwidth rule looks at.
        options: of the kernel.
    """
    reduced = reduce_features(
        features_UD, pairs, num_components=options.num_components, whitening=options.whitening
    )
    bandwidth = options.bandwidth
    if isinstance(bandwidth, str):
        sample_SK = reduced.values_PK[_sample_pairs(pairs, hashes_M)]
        bandwidth = choose_bandwidth(sample_SK, bandwidth)
    order_M = np.argsort(hashes_M, kind="stable")
    return Kernel(pairs, reduced, order_M, bandwidth, options.num_landmarks)


def _sample_pairs(pairs: RowPairs, hashes_M: NDArray[np.uint64]) -> IntArray:
    """Pairs of distinct rows, those of the records with the smallest hashes."""
    of_record_M = pairs.of_record_N
    assert of_record_M is not None
    drawn = of_record_M[np.argsort(hashes_M, kind="stable")]
    _, first = np.unique(pairs.row_P[drawn], return_index=True)
    return drawn[np.sort(first)[:SAMPLE_ROWS]]
