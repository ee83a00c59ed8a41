"""Means, standard deviations and intervals, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from prism_tune.intervals import paired_difference, spread


def test_the_spread_of_three_values():
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.num_seeds) == (3.0, 3)
    assert found.sd == pytest.approx(7**0.5)  # ((-2)^2 + (-1)^2 + 3^2) / 2
    assert spread([4.0]).sd is None
    assert spread([]) is None


def test_differences_are_taken_seed_by_seed():
    # Differences 1, 2, 3: sd 1, standard error 1/sqrt(3), t(2) = 4.303.
    values, baseline = {0: 11.0, 1: 22.0, 2: 33.0, 9: 0.0}, {2: 30.0, 0: 10.0, 1: 20.0, 8: 5.0}
    found = paired_difference(values, baseline)
    assert (found.mean, found.num_seeds) == (2.0, 3)
    assert found.low == pytest.approx(2 - 4.303 / 3**0.5)
    assert found.high == pytest.approx(2 + 4.303 / 3**0.5)


def test_one_seed_has_no_interval_and_no_common_seed_no_difference():
    one = paired_difference({3: 5.0}, {3: 4.0})
    assert (one.mean, one.low, one.high) == (1.0, None, None)
    assert paired_difference({1: 5.0}, {2: 4.0}) is None
