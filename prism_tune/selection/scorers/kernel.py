"""The RBF kernel over a pool: what kernel_prism and kernel_repulsion share.

Features go in; short rows, the kernel's frequencies and the densities come out.

Shape legend: M records to be scored, U feature rows, P pairs of a feature row and a group,
S sampled pairs, K components, F = 2 x frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from prism_tune.config.sections import Count
from prism_tune.features.reduction import ReducedFeatures, reduce_features
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.row_pairs import RowPairs
from prism_tune.selection.options import ScorerOptions
from prism_tune.selection.scorers.kernel_density import (
    FloatArray,
    KernelFeatures,
    choose_bandwidth,
    draw_frequencies,
    mean_kernel,
)

_SAMPLE_ROWS = 1000


class KernelOptions(ScorerOptions):
    """The kernel in `selection.options`.

    `bandwidth` is h, a *squared* length; "median" is a tenth of the median squared distance,
    "nearest" the median squared distance to the nearest neighbour, both among up to 1,000 distinct
    features. `num_features` is F.
    """

    bandwidth: Annotated[float, Field(gt=0, strict=True)] | Literal["median", "nearest"] = Field(
        default=0.1, description="a positive number, median or nearest"
    )
    num_features: Annotated[int, Field(gt=0, strict=True)] = Field(
        default=1024, description="a positive even number"
    )
    num_components: Count = 64
    whitening: bool = False

    @field_validator("num_features")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("a positive even number")
        return value


@dataclass(frozen=True)
class Kernel:
    """exp(-|x - y|^2 / 2h) between the records of a group, by random Fourier features."""

    pairs: RowPairs
    reduced: ReducedFeatures
    frequencies_KM: FloatArray
    bandwidth: float

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What the manifest says."""
        return {**self.reduced.diagnostics, "bandwidth": self.bandwidth}

    def densities(self) -> FloatArray:
        """The mean kernel of every record with the others of its group, (M,)."""
        densities_P = np.zeros(len(self.pairs.row_P))
        for members in self.pairs.members():
            values_PK, counts_P = self.reduced.values_PK[members], self.pairs.count_P[members]
            densities_P[members] = mean_kernel(values_PK, counts_P, self.frequencies_KM)
        spread_M: FloatArray = self.pairs.spread(densities_P)
        return spread_M

    def groups(self) -> Iterator[tuple[NDArray[np.int64], KernelFeatures]]:
        """The pairs of each group, and their random features."""
        for members in self.pairs.members():
            yield members, KernelFeatures(self.reduced.values_PK[members], self.frequencies_KM)


def fit_kernel(
    features_UD: RowBlocks,
    pairs: RowPairs,
    hashes_M: NDArray[np.uint64],
    options: KernelOptions,
    seed: int,
) -> Kernel:
    """Reduce the features, choose the bandwidth and draw the frequencies.

    Args:
        features_UD: one row per distinct feature.
        pairs: which records share which rows and groups.
        hashes_M: of the records; they draw the sample that a bandwidth rule looks at.
        options: of the kernel.
        seed: of the frequencies.
    """
    reduced = reduce_features(
        features_UD, pairs, num_components=options.num_components, whitening=options.whitening
    )
    bandwidth = options.bandwidth
    if isinstance(bandwidth, str):
        sample_SK = reduced.values_PK[_sample_pairs(pairs, hashes_M)]
        bandwidth = choose_bandwidth(sample_SK, bandwidth)
    frequencies_KM = draw_frequencies(reduced.basis_DK, options.num_features // 2, bandwidth, seed)
    return Kernel(pairs, reduced, frequencies_KM, bandwidth)


def _sample_pairs(pairs: RowPairs, hashes_M: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of distinct rows, those of the records with the smallest hashes."""
    of_record_M = pairs.of_record_N
    assert of_record_M is not None
    drawn = of_record_M[np.argsort(hashes_M, kind="stable")]
    _, first = np.unique(pairs.row_P[drawn], return_index=True)
    return drawn[np.sort(first)[:_SAMPLE_ROWS]]
