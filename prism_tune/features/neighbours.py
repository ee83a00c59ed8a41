"""The graph of nearest neighbours, with messages along its edges.

Rows go in; a graph with squared distances on its edges comes out, undirected unless asked
otherwise.

Shape legend: N rows, K components, Q neighbours of a row, E directed edges.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_BLOCK_EDGES = 1 << 18


@dataclass(frozen=True)
class NeighbourGraph:
    """The neighbours of row n are `neighbour_E[start_N[n] : start_N[n + 1]]`, ascending."""

    start_N: IntArray
    neighbour_E: IntArray
    squared_distance_E: FloatArray

    def weights(self, gamma: float) -> FloatArray:
        """exp(-gamma d^2) of every directed edge, (E,)."""
        return np.exp(-gamma * self.squared_distance_E)

    def pass_forward(self, values_N: FloatArray, gamma: float) -> FloatArray:
        """Each row's value, and what its neighbours send: v_i + sum_j w_ij v_j."""
        row_E = np.repeat(np.arange(len(values_N)), np.diff(self.start_N))
        sent_E = self.weights(gamma) * values_N[self.neighbour_E]
        return values_N + np.bincount(row_E, sent_E, minlength=len(values_N))

    def pick_in_reverse(self, values_N: FloatArray, gamma: float, num_picks: int) -> IntArray:
        """Take the largest value k, again and again; v_j falls by w_kj v_k at its neighbours j.

        Of equal values the first row is taken.
        """
        values = values_N.tolist()
        weights_E = self.weights(gamma).tolist()
        neighbour_E, start_N = self.neighbour_E.tolist(), self.start_N.tolist()
        queue = [(-value, row) for row, value in enumerate(values)]
        heapq.heapify(queue)
        picks: list[int] = []
        taken = bytearray(len(values))
        while queue and len(picks) < num_picks:
            key, row = heapq.heappop(queue)
            if taken[row] or -key != values[row]:
                continue  # outdated: the value has changed since
            taken[row] = True
            picks.append(row)
            for edge in range(start_N[row], start_N[row + 1]):
                neighbour = neighbour_E[edge]
                if not taken[neighbour]:
                    values[neighbour] -= weights_E[edge] * values[row]
                    heapq.heappush(queue, (-values[neighbour], neighbour))
        return np.array(picks, dtype=np.int64)


def connect_nearest(
    rows_NK: FloatArray, num_neighbours: int, *, directed: bool = False
) -> NeighbourGraph:
    """Connect every row with its nearest others, by exact search.

    Edges hold in both directions, unless `directed`: then a row's neighbours are its nearest alone.

    Time: O(N^2 K), in faiss. Of more equally near rows than asked for, which are connected is
    rounding's to say, but the same for the same rows in the same order.
    """
    num_rows = len(rows_NK)
    wanted = min(num_neighbours, num_rows - 1)
    near_NQ = find_nearest(rows_NK, wanted)
    row_E = np.repeat(np.arange(num_rows), wanted)
    one, other = row_E, near_NQ.ravel()
    if not directed:
        one, other = np.concatenate([one, other]), np.concatenate([other, one])
    keys_E = np.unique(one * num_rows + other)
    row_E, neighbour_E = np.divmod(keys_E, num_rows)
    distances = np.empty(len(keys_E))
    for start in range(0, len(keys_E), _BLOCK_EDGES):
        at = slice(start, start + _BLOCK_EDGES)
        distances[at] = ((rows_NK[row_E[at]] - rows_NK[neighbour_E[at]]) ** 2).sum(axis=1)
    start_N = np.searchsorted(row_E, np.arange(num_rows + 1))
    return NeighbourGraph(start_N, neighbour_E, distances)


def find_nearest(rows_NK: FloatArray, num_neighbours: int) -> IntArray:
    """The nearest other rows of every row, the nearest first, (N, Q)."""
    import faiss  # here: loaded only where it is used

    num_rows, width = rows_NK.shape
    if num_neighbours == 0:
        return np.zeros((num_rows, 0), dtype=np.int64)
    if width == 0:  # all rows are equal; faiss would abort the process
        return (np.arange(num_rows)[:, None] + np.arange(1, num_neighbours + 1)) % num_rows
    index = faiss.IndexFlatL2(width)
    rows32_NK = np.ascontiguousarray(rows_NK, dtype=np.float32)
    index.add(rows32_NK)
    _, found = index.search(rows32_NK, num_neighbours + 1)
    found = found.astype(np.int64)
    # A row among many equal ones need not find itself; then the last one found goes.
    is_self = found == np.arange(num_rows)[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    return found[~is_self].reshape(num_rows, num_neighbours)
