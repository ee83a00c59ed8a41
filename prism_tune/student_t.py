"""Student's t for means over few seeds."""

from __future__ import annotations

import math
import statistics

# The 97.5 % points of Student's t with 1, 2, ... 30 degrees of freedom.
_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL_975 = statistics.NormalDist().inv_cdf(0.975)


def student_t_975(degrees: int) -> float:
    """The 97.5 % point of Student's t; beyond 30 degrees of freedom by its expansion in 1/df."""
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = _NORMAL_975
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def welch_half_width(sd_a: float, num_a: int, sd_b: float, num_b: int) -> float:
    """Half of the 95 % interval of a difference of two means of unpaired values (Welch).

    The degrees of freedom (Welch and Satterthwaite) are rounded down, so the interval is not too
    short.

    Args:
        sd_a: sample standard deviation (n - 1) of the one.
        num_a: of how many values, at least two.
        sd_b: of the other.
        num_b: likewise.
    """
    a, b = sd_a**2 / num_a, sd_b**2 / num_b
    if a + b == 0:
        return 0.0
    degrees = (a + b) ** 2 / (a**2 / (num_a - 1) + b**2 / (num_b - 1))
    return student_t_975(max(1, math.floor(degrees + 1e-9))) * math.sqrt(a + b)
