"""Which features look alike: clusters, and groups of near-duplicates.

Features go in; a label for each comes out. Every feature is re-centred, among all or inside its
source, and projected at random to a short sketch, whose cosines are close to its own (Johnson and
Lindenstrauss, 1984); where the features are no wider than a sketch, it is the feature. Clusters are
spherical k-means of the sketches. Two features are near-duplicates if they have one centre and a
cosine of `DUPLICATE_COSINE` or more, and a group is what such pairs connect: the sketches say which
pairs to look at, inside cells where there are many features, and the features themselves decide.

Shape legend: U features, D feature width, P sketch width, S features of a cell, G of a group, C
centres.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from prism_tune.features.row_blocks import RowBlocks, even_places, rounding_share, unit_rows
from prism_tune.features.row_pairs import split_by

Rows = NDArray[np.float32]
IntArray = NDArray[np.int64]

DUPLICATE_COSINE = 0.95

_WIDTH = 64
_LOOSE_COSINE = 0.9  # of sketches: a cosine of 0.95 has a standard error of 0.012 in them
_MEAN_ROWS = 2048
_MOST_CENTRES = 256  # of the largest sources; all others share the pool's
_FEWEST_OF_CENTRE = 16  # features, below which their mean is too much their own
_BLOCK_BYTES = 32 << 20
_MOST_CLUSTERS = 48
_ONE_CELL = 8192  # features that are compared pair by pair
_PER_CELL = 250
_CELLS_EACH = 2  # a pair at the border of two cells is met in one of them
_EXACT_GROUP = 4096  # a larger one is as the sketches say


class Sketches:
    """The sketches of all features, of length 1, (U, P); zero without a finite direction.

    Args:
        features_UD: the features.
        source_U: a number for each; those with the same are centred together. Sources of fewer than
            16 features, and all but the largest 256, share the centre of all features.
    """

    def __init__(self, features_UD: RowBlocks, source_U: IntArray) -> None:
        self._features_UD = features_UD
        self.centre_U, self._centres_CD = _find_centres(features_UD, source_U)
        rounding = rounding_share(np.dtype(np.float32))
        self._noise_C = rounding * np.linalg.norm(self._centres_CD, axis=1)
        width = features_UD.shape[1]
        drawn = np.random.default_rng(0)
        self._projection_DP = (
            np.eye(width, dtype=np.float32)
            if width <= _WIDTH
            else drawn.standard_normal((width, _WIDTH), dtype=np.float32)
        )
        number = features_UD.shape[0]
        self.unit_UP = np.zeros((number, self._projection_DP.shape[1]), dtype=np.float32)
        block_rows = max(1, _BLOCK_BYTES // (4 * width))
        for start in range(0, number, block_rows):
            block = slice(start, start + block_rows)
            centred_BD = self._centre(features_UD[block], self.centre_U[block])
            self.unit_UP[block] = unit_rows(centred_BD @ self._projection_DP)

    def read_units(self, rows: IntArray) -> Rows:
        """Some features themselves, centred and of length 1."""
        found = [self._features_UD[row : row + 1] for row in rows.tolist()]
        return unit_rows(self._centre(np.concatenate(found), self.centre_U[rows]))

    def _centre(self, rows_BD: Rows, centre_B: IntArray) -> Rows:
        centred_BD = np.array(rows_BD, dtype=np.float32)
        for centre in np.unique(centre_B).tolist():
            centred_BD[centre_B == centre] -= self._centres_CD[centre]
        norms_B = np.linalg.norm(centred_BD, axis=1)
        centred_BD[~(np.isfinite(norms_B) & (norms_B > self._noise_C[centre_B]))] = 0
        return centred_BD


def find_clusters(sketches: Sketches) -> NDArray[np.int32]:
    """The cluster of each feature, (U,): at most 48, the more the more there are."""
    number = len(sketches.unit_UP)
    num_clusters = int(np.clip(round((number / 8) ** 0.5), 1, _MOST_CLUSTERS))
    return _find_cells(sketches.unit_UP, num_clusters, 1)[:, 0].astype(np.int32)


def find_duplicates(sketches: Sketches) -> NDArray[np.int32]:
    """The group of near-duplicates of each feature, (U,); -1 for one that has none."""
    number = len(sketches.unit_UP)
    parts = [np.zeros((2, 0), dtype=np.int64), *_loose_pairs(sketches)]
    first, second = np.concatenate(parts, axis=1)
    label_U = np.full(number, -1, dtype=np.int32)
    num_groups = 0
    for rows_G in _connect(first, second, number):
        if len(rows_G) <= _EXACT_GROUP:
            units_GD = sketches.read_units(rows_G)
            one, other = np.triu(units_GD @ units_GD.T >= DUPLICATE_COSINE, k=1).nonzero()
            exact = [rows_G[places] for places in _connect(one, other, len(rows_G))]
        else:
            exact = [rows_G]
        for rows in exact:
            label_U[rows] = num_groups
            num_groups += 1
    return label_U


def _loose_pairs(sketches: Sketches) -> Iterator[IntArray]:
    """Pairs of features to look at, (2, pairs) at a time."""
    unit_UP, centre_U = sketches.unit_UP, sketches.centre_U
    number = len(unit_UP)
    if number <= _ONE_CELL:
        cells = [np.arange(number)]
    else:
        nearest = _find_cells(unit_UP, number // _PER_CELL, _CELLS_EACH)
        order = np.argsort(nearest, axis=None, kind="stable")
        sizes = np.bincount(nearest.ravel(), minlength=number // _PER_CELL)
        cells = np.split(order // _CELLS_EACH, np.cumsum(sizes)[:-1])
    for rows_S in cells:
        units_SP = unit_UP[rows_S]
        step = max(1, _BLOCK_BYTES // (4 * max(len(rows_S), 1)))
        for start in range(0, len(rows_S), step):
            cosines = units_SP[start : start + step] @ units_SP[start:].T
            found = np.flatnonzero(cosines >= _LOOSE_COSINE)
            first, second = np.divmod(found, cosines.shape[1])
            pairs = np.stack([rows_S[start + first], rows_S[start + second]])
            yield pairs[:, (first < second) & (centre_U[pairs[0]] == centre_U[pairs[1]])]


def _find_cells(unit_UP: Rows, num_cells: int, num_nearest: int) -> IntArray:
    """The nearest centres of spherical k-means, (U, num_nearest)."""
    import faiss  # here: loaded only where it is used

    kmeans = faiss.Kmeans(
        unit_UP.shape[1],
        num_cells,
        niter=10,
        nredo=4,
        seed=0,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=64,
    )
    kmeans.train(unit_UP)
    found: IntArray = kmeans.index.search(unit_UP, min(num_nearest, num_cells))[1]
    return found


def _connect(first: IntArray, second: IntArray, number: int) -> list[IntArray]:
    """What pairs connect: two or more each, ascending, in the order of their first."""
    graph = coo_matrix((np.ones(len(first), dtype=bool), (first, second)), shape=(number, number))
    _, label = connected_components(graph, directed=False)
    paired = np.unique(np.concatenate([first, second]))
    groups = [part for part in split_by(label, paired) if len(part)]
    return sorted(groups, key=lambda rows: int(rows[0]))


def _find_centres(features_UD: RowBlocks, source_U: IntArray) -> tuple[IntArray, Rows]:
    """The number of each feature's centre, (U,), and the centres, (C, D): first that of all."""
    sizes = np.bincount(source_U)
    largest = np.argsort(-sizes, kind="stable")[:_MOST_CENTRES]
    largest = largest[sizes[largest] >= _FEWEST_OF_CENTRE]
    number_of = np.zeros(len(sizes), dtype=np.int64)
    centres = [_estimate_mean(features_UD, np.arange(features_UD.shape[0]))]
    if len(sizes[sizes > 0]) > 1:
        number_of[largest] = np.arange(len(largest)) + 1
        centres += [_estimate_mean(features_UD, np.flatnonzero(source_U == s)) for s in largest]
    return number_of[source_U], np.stack(centres)


def _estimate_mean(features_UD: RowBlocks, rows_S: IntArray) -> Rows:
    """The mean over evenly spaced ones of these rows, all of a few."""
    places = even_places(len(rows_S), _MEAN_ROWS)
    rows = np.concatenate([features_UD[row : row + 1] for row in rows_S[places].tolist()])
    rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(features_UD.shape[1])
    return mean.astype(np.float32)
