"""What a region of the pool still lacks of its fair share, while records are picked in rounds.

Ours, of kernel herding (Chen, Welling and Smola 2010, https://arxiv.org/abs/1203.3472), tempered:
where herding takes the record of the largest deficit, the deficit changes the rates of a race.
Equation: with w_j the rates that a race begins with and s records kept, b about to be picked,

    rate_i = w_i max(0.05, 1 + d (s / b) (1 - (S_i + 0.02) / (T_i + 0.02))),

S_i the mean kernel of i with the kept, T_i = sum_j w_j k_ij / sum_j w_j over the others: what S
would be in a sample of density in proportion to w. Ahead of its share a region waits, behind it it
catches up; a record without neighbours has S = T and keeps its rate. d = 1 makes up in one round
for what the rounds before have missed.
T is estimated by the group's landmarks; S by up to 512 of the kept of each round, those with the
smallest hashes: exact where a group has no more landmarks and a round no more records.
Cost: O(N m K) for T and O(N 512 K) a round.

Shape legend: N records of a group, P its rows, m landmarks.
"""

from __future__ import annotations

import numpy as np

from prism_tune.selection.scorers.kernels.density import FloatArray, IntArray, sum_kernel
from prism_tune.selection.scorers.kernels.kernel import Kernel, KernelGroup

LEAST = 0.05
"""Of a rate, however far ahead its region is."""
SMOOTHING = 0.02
"""A mean kernel that counts as none."""
KEPT_LANDMARKS = 512
"""Of the records that a round keeps."""


class Deficit:
    """The deficits of a group's records, round after round.

    Args:
        group: the records and rows.
        kernel: of which the group is one.
        rates_N: logarithms of w.
        strength: d.
    """

    def __init__(
        self, group: KernelGroup, kernel: Kernel, rates_N: FloatArray, strength: float
    ) -> None:
        self._group, self._rbf, self._strength = group, kernel.rbf, strength
        num_landmarks = kernel.num_landmarks
        weights_N = np.exp(rates_N - rates_N.max())
        own_N = weights_N.copy()  # a landmark is not its own neighbour
        own_N[num_landmarks:] = 0.0
        at_L = group.row_N[:num_landmarks]
        sums_P = self._sum(at_L, weights_N[:num_landmarks])
        total = float(own_N.sum())
        others_N = np.maximum(sums_P[group.row_N] - own_N, 0.0)
        self._fair_N = others_N / np.maximum(total - own_N, np.finfo(float).tiny)
        self._kept_P = np.zeros(len(group.values_PK))
        self._num_kept = 0

    def add(self, chosen: IntArray) -> None:
        """Records that a round has kept."""
        drawn = np.sort(chosen)[:KEPT_LANDMARKS]  # records stand in the order of their hashes
        share = len(chosen) / len(drawn)
        self._kept_P += self._sum(self._group.row_N[drawn], np.full(len(drawn), share))
        self._num_kept += len(chosen)

    def log_factors(self, size: int) -> FloatArray:
        """What the rates are multiplied by before a round of this size, its logarithm, (N,)."""
        if self._num_kept == 0:
            return np.zeros(len(self._fair_N))
        kept_N = self._kept_P[self._group.row_N] / self._num_kept
        lacking_N = 1 - (kept_N + SMOOTHING) / (self._fair_N + SMOOTHING)
        behind = self._strength * self._num_kept / size
        factors_N: FloatArray = np.log(np.maximum(LEAST, 1 + behind * lacking_N))
        return factors_N

    def _sum(self, at_L: IntArray, weights_L: FloatArray) -> FloatArray:
        values_PK = self._group.values_PK
        return sum_kernel(values_PK, values_PK[at_L], weights_L, self._rbf)
