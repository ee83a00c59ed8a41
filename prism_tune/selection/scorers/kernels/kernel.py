"""The kernel between a pool's records that kernel_prism and kernel_repulsion share.

Short rows go in; the bandwidth and the densities come out. With a `text_weight` they are of images
and texts: records of one image that say different things are no longer the same.

Shape legend: M records to be scored, P rows, L landmarks of a group, K components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Count
from prism_tune.features.reduction import ReducedFeatures
from prism_tune.features.row_pairs import split_by
from prism_tune.selection.evidence.embeddings.text_sif import TEXT_SIF
from prism_tune.selection.evidence.features import FEATURES
from prism_tune.selection.evidence.source import EvidenceSource
from prism_tune.selection.scorer_options import ScorerOptions
from prism_tune.selection.scorers.kernels.density import (
    FloatArray,
    IntArray,
    Rbf,
    choose_bandwidth,
    mean_kernel,
)
from prism_tune.selection.scorers.kernels.short_rows import (
    Reduction,
    ShortRows,
    join_rows,
    sample_rows,
)
from prism_tune.selection.scorers.scorer import ScoringContext


class KernelOptions(ScorerOptions):
    """The kernel in `selection.options`.

    `bandwidth` is h, a *squared* length; "median" is a tenth of the median squared distance,
    "nearest" the median squared distance to the nearest neighbour, both among up to 1,000 distinct
    features. `num_landmarks` is how many records of a group stand for all in its densities.
    `text_weight` is w of `density.Rbf`; the texts' bandwidth is by the same rule (of a number:
    "median").
    """

    bandwidth: Annotated[float, Field(gt=0, strict=True)] | Literal["median", "nearest"] = Field(
        default="median", description="a positive number, median or nearest"
    )
    num_landmarks: Count = 2048
    num_components: Count = 64
    whitening: bool = False
    text_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="a number from 0 to 1"
    )


def reads_rows(options: KernelOptions) -> tuple[EvidenceSource, ...]:
    """The features; the texts' embeddings, where they weigh anything."""
    return (FEATURES, TEXT_SIF) if options.text_weight else (FEATURES,)


def shorten_images(
    context: ScoringContext, options: KernelOptions
) -> tuple[ShortRows, ReducedFeatures]:
    """The rows of the records' features, and what else is known of them."""
    return _reduction(options).shorten(context.rows(), context.groups_M)


def shorten_texts(
    context: ScoringContext, options: KernelOptions, *, always: bool = False
) -> ShortRows | None:
    """The rows of the records' texts, where the kernel (or more, `always`) reads them."""
    if not (always or options.text_weight):
        return None
    return _reduction(options).shorten(context.more_rows[TEXT_SIF.name], context.groups_M)[0]


def _reduction(options: KernelOptions) -> Reduction:
    return Reduction(options.num_components, options.whitening)


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
    """k(x, y) of `density.Rbf` between the records of a group.

    Attributes:
        rows: of the records.
        rbf: the kernel.
        order_M: the records by the hashes of their uids.
        num_landmarks: of a group.
    """

    rows: ShortRows
    rbf: Rbf
    order_M: IntArray
    num_landmarks: int

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What the manifest says."""
        found = {"bandwidth": self.rbf.bandwidth}
        if self.rbf.text_weight:
            found["text_bandwidth"] = self.rbf.text_bandwidth
        return found

    def groups(self) -> Iterator[KernelGroup]:
        """Group by group."""
        pairs, row_M = self.rows.pairs, self.rows.of_record_M
        group_M = pairs.group_P[row_M]
        for records in split_by(group_M, self.order_M, num_groups=len(pairs.size_G)):
            members, first, place_N = np.unique(
                row_M[records], return_index=True, return_inverse=True
            )
            by_hash = np.argsort(first)
            row_N = np.argsort(by_hash)[place_N]
            at = members[by_hash]
            yield KernelGroup(records, row_N, self.rows.values_PK[at], pairs.count_P[at])

    def densities(self) -> FloatArray:
        """The mean kernel of every record with the others of its group, (M,)."""
        densities_M = np.zeros(len(self.order_M))
        for group in self.groups():
            landmarks_L = group.row_N[: self.num_landmarks]
            density_P = mean_kernel(group.values_PK, group.counts_P, landmarks_L, self.rbf)
            densities_M[group.records] = density_P[group.row_N]
        return densities_M


def fit_kernel(
    images: ShortRows,
    texts: ShortRows | None,
    hashes_M: NDArray[np.uint64],
    options: KernelOptions,
) -> Kernel:
    """Choose the bandwidths.

    Args:
        images: the records' rows.
        texts: the rows of their texts; read where `text_weight` is above 0.
        hashes_M: of the records, without a seed: those with the smallest are the landmarks, and the
            sample that a bandwidth rule looks at.
        options: of the kernel.
    """
    order_M = np.argsort(hashes_M, kind="stable")
    bandwidth = options.bandwidth
    if isinstance(bandwidth, str):
        bandwidth = choose_bandwidth(sample_rows(images, order_M), bandwidth)
    if not options.text_weight:
        return Kernel(images, Rbf(bandwidth), order_M, options.num_landmarks)
    assert texts is not None
    rule = options.bandwidth if isinstance(options.bandwidth, str) else "median"
    of_texts = choose_bandwidth(sample_rows(texts, order_M), rule)
    rbf = Rbf(bandwidth, options.text_weight, of_texts, images.num_columns)
    return Kernel(join_rows(images, texts), rbf, order_M, options.num_landmarks)
