"""The shape of the feature cloud, from an even sample of records.

Features of records go in; pairwise cosines before and after re-centring, singular values and a 2-D
map come out. All by the R x R Gram matrix, so the width of the features does not matter.

Shape legend: R sampled records, D feature width, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prism_tune.features.row_blocks import even_places, unit_rows
from prism_tune.results.runs import FinishedRun

FloatArray = NDArray[np.float64]

MAX_RECORDS = 2000
_NUM_BINS = 120


@dataclass(frozen=True)
class FeatureSample:
    """Evenly spaced records of the pool, of those with a finite feature.

    `records` are rows of the pool; `num_available` is how many there were to choose from.
    """

    records: NDArray[np.int64]
    values_RD: FloatArray
    num_available: int

    @cached_property
    def centred_RD(self) -> FloatArray:
        """The features minus their mean."""
        centred_RD: FloatArray = self.values_RD - self.values_RD.mean(axis=0)
        return centred_RD

    @cached_property
    def _centred_eigen(self) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues of the centred Gram matrix, largest first, and its eigenvectors."""
        values_R, vectors_RR = np.linalg.eigh(self.centred_RD @ self.centred_RD.T)
        return values_R[::-1].clip(min=0), vectors_RR[:, ::-1]

    def variance_shares(self, *, centred: bool) -> FloatArray:
        """Squared singular values as shares of their sum, largest first."""
        if centred:
            values_R = self._centred_eigen[0]
        else:
            gram_RR = self.values_RD @ self.values_RD.T
            values_R = np.linalg.eigvalsh(gram_RR)[::-1].clip(min=0)
        total = values_R.sum()
        return values_R / total if total > 0 else values_R

    def project(self) -> FloatArray:
        """Each record on the first two principal axes, (R, 2)."""
        values_R, vectors_RR = self._centred_eigen
        points = vectors_RR[:, :2] * np.sqrt(values_R[:2])
        signs = np.sign(points[np.abs(points).argmax(axis=0), np.arange(points.shape[1])])
        points = points * np.where(signs == 0, 1, signs)
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def draw_sample(run: FinishedRun, max_records: int = MAX_RECORDS) -> FeatureSample | None:
    """Every k-th record that has a feature, so that every part of the pool has its share.

    None where the run has no features, or fewer than three records with a finite one.
    """
    if run.features is None:
        return None
    available = np.flatnonzero(run.features.row_N >= 0)
    records = available[even_places(len(available), max_records, nearest=True)]
    values_RD = run.features.read(records).astype(np.float64)
    finite_R = np.isfinite(values_RD).all(axis=1)
    if finite_R.sum() < 3:
        return None
    return FeatureSample(records[finite_R], values_RD[finite_R], len(available))


def cosine_histogram(values_RD: FloatArray) -> tuple[FloatArray, NDArray[np.int64], float]:
    """Edges of B equal bins from -1 to 1, the pairs in each, and the mean cosine of all pairs.

    A zero vector has cosine 0 with every other.
    """
    units_RD = unit_rows(values_RD)
    cosines_RR = units_RD @ units_RD.T
    cosines = cosines_RR[np.triu_indices(len(cosines_RR), k=1)].clip(-1, 1)
    edges = np.linspace(-1, 1, _NUM_BINS + 1)
    counts_B, _ = np.histogram(cosines, bins=edges)
    return edges, counts_B, float(cosines.mean())
