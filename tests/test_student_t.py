"""Student's t against published tables, and Welch's interval by hand."""

from __future__ import annotations

import pytest

from prism_tune.intervals import student_t_975, welch_half_width


@pytest.mark.parametrize(
    ("degrees", "point"),
    # Of the published tables of Student's t.
    [(1, 12.706), (4, 2.776), (9, 2.262), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980)],
)
def test_students_t(degrees, point):
    assert student_t_975(degrees) == pytest.approx(point, abs=6e-4)


def test_welch_by_hand():
    # 1/3 and 4/5: (17/15)^2 / ((1/3)^2 / 2 + (4/5)^2 / 4) = 5.96 degrees of freedom; t(5) = 2.571.
    assert welch_half_width(1.0, 3, 2.0, 5) == pytest.approx(2.571 * (17 / 15) ** 0.5)
    # Equal spreads of as many seeds: 2 (n - 1) degrees, t(8) = 2.306.
    assert welch_half_width(3.0, 5, 3.0, 5) == pytest.approx(2.306 * (18 / 5) ** 0.5)
    assert welch_half_width(0.0, 3, 0.0, 3) == 0.0
