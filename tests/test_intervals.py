"""The statistics against theory, published tables and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.intervals import (
    detectable_difference,
    difference,
    difference_interval,
    mean_interval,
    percentile_interval,
    resample_means,
    spread,
    student_t_975,
    welch_half_width,
)


def test_the_bootstrap_has_the_variance_of_a_mean():
    credits_RQ = np.array([[1.0] * 300 + [0.0] * 100])
    means_B = resample_means(credits_RQ, np.ones((1, 400), bool), "pope")[:, 0, 0]
    assert means_B.shape == (2000,)
    assert means_B.mean() == pytest.approx(75, abs=0.2)
    assert means_B.std() == pytest.approx(100 * (0.75 * 0.25 / 400) ** 0.5, rel=0.05)


def test_the_bootstrap_is_the_same_every_time_and_in_any_block(monkeypatch):
    credits_RQ = np.random.default_rng(1).random((2, 50))
    masks_CQ = np.ones((1, 50), bool)
    whole = resample_means(credits_RQ, masks_CQ, "pope")
    assert (whole == resample_means(credits_RQ, masks_CQ, "pope")).all()
    monkeypatch.setattr("prism_tune.intervals._QUESTION_BLOCK", 50 * 700)
    np.testing.assert_allclose(resample_means(credits_RQ, masks_CQ, "pope"), whole)


def test_benchmarks_of_as_many_questions_are_drawn_from_apart():
    """The mean of two has the variance of 200 questions, whatever the order of their ids."""
    credits_1Q = np.array([[1.0] * 50 + [0.0] * 50])
    masks_1Q = np.ones((1, 100), bool)
    digits_B, words_B = (
        resample_means(credits, masks_1Q, name)[:, 0, 0]
        for credits, name in ((credits_1Q, "digits"), (1 - credits_1Q, "words"))
    )
    assert ((digits_B + words_B) / 2).std() == pytest.approx(100 * (0.25 / 200) ** 0.5, rel=0.06)


def test_the_interval_is_the_central_95_percent():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert percentile_interval(np.array([1.0, np.nan])) is None
    assert percentile_interval(np.array([1.0, np.inf])) is None


def test_no_spread_over_questions_is_no_certainty():
    """All discordant: every resample has the same difference. None discordant is noise."""
    assert percentile_interval(np.full(2000, 100.0)) is None
    assert percentile_interval(33.3 + np.linspace(0, 1e-13, 2000)) is None  # rounding
    assert percentile_interval(np.zeros(2000)) is None
    assert difference_interval(np.full(2000, 100.0)) is None
    assert difference_interval(np.linspace(-1e-14, 1e-14, 2000)) == (0.0, 0.0)  # noise


@pytest.mark.parametrize(
    ("degrees", "point"),
    # Of the published tables of Student's t.
    [(1, 12.706), (4, 2.776), (9, 2.262), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980)],
)
def test_students_t(degrees, point):
    assert student_t_975(degrees) == pytest.approx(point, abs=6e-4)


def test_welch_by_hand():
    # 1/3 and 4/5: (17/15)^2 / ((1/3)^2 / 2 + (4/5)^2 / 4) = 5.96 degrees of freedom; t(5) = 2.571.
    assert welch_half_width(1.0, 3, 2.0, 5) == pytest.approx(2.571 * (17 / 15) ** 0.5, rel=2e-4)
    # Equal spreads of as many seeds: 2 (n - 1) degrees, t(8) = 2.306.
    assert welch_half_width(3.0, 5, 3.0, 5) == pytest.approx(2.306 * (18 / 5) ** 0.5, rel=2e-4)
    assert welch_half_width(0.0, 3, 0.0, 3) == 0.0


def test_the_spread_of_three_values():
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.num_seeds) == (3.0, 3)
    assert found.sd == pytest.approx(7**0.5)  # ((-2)^2 + (-1)^2 + 3^2) / 2
    assert spread([4.0]).sd is None
    assert spread([]) is None


def test_differences_are_taken_seed_by_seed():
    # Differences 1, 2, 3: sd 1, standard error 1/sqrt(3), t(2) = 4.303.
    values, baseline = {0: 11.0, 1: 22.0, 2: 33.0, 9: 0.0}, {2: 30.0, 0: 10.0, 1: 20.0, 8: 5.0}
    found = difference(values, baseline)
    assert (found.mean, found.num_seeds, found.test) == (2.0, 3, "paired")
    assert found.low == pytest.approx(2 - 4.303 / 3**0.5, abs=1e-3)
    assert found.high == pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3)


def test_five_paired_seeds_tell_apart_what_unpaired_ones_do_not():
    values, baseline = [53.1, 58.8, 65.2, 49.7, 69.1], [50.0, 56.0, 62.0, 47.0, 66.0]
    paired = difference(dict(enumerate(values)), dict(enumerate(baseline)))
    assert f"{paired.mean:+.1f} ({paired.low:.1f} to {paired.high:.1f})" == "+3.0 (2.7 to 3.2)"
    assert (paired.test, paired.is_noise) == ("paired", False)
    apart = difference(dict(enumerate(values)), dict(enumerate(baseline, start=5)))
    assert (apart.test, apart.is_noise) == ("welch", True)
    assert apart.high - apart.mean == pytest.approx(12.0, abs=0.05)


def test_runs_that_share_one_seed_are_not_paired():
    found = difference({0: 1.0, 1: 3.0}, {1: 2.0, 2: 4.0})
    assert (found.mean, found.num_seeds, found.test) == (-1.0, 1, "welch")


def test_without_two_seeds_on_each_side_there_is_no_interval():
    one = difference({3: 5.0}, {3: 4.0})
    assert (one.mean, one.low, one.high, one.test, one.is_noise) == (1.0, None, None, None, None)
    assert difference({1: 5.0, 3: 9.0}, {3: 4.0}).mean == 5.0  # of the seed that both have
    apart = difference({1: 5.0}, {2: 4.0})
    assert (apart.mean, apart.num_seeds) == (1.0, 0)
    assert difference({}, {2: 4.0}) is None


def test_seeds_that_do_not_differ_cannot_judge():
    """Two seeds that happen to agree would make any difference certain."""
    paired = difference({0: 60.3, 1: 61.7}, {0: 50.3, 1: 51.7})
    assert (paired.mean, paired.num_seeds) == (pytest.approx(10), 2)
    assert (paired.low, paired.test, paired.is_noise) == (None, None, None)
    assert paired.is_constant
    apart = difference({0: 60.0, 1: 60.0}, {2: 50.0, 3: 50.0})
    assert (apart.mean, apart.low, apart.is_noise, apart.is_constant) == (10.0, None, None, True)
    same = difference({0: 60.3, 1: 61.7}, {0: 60.3, 1: 61.7})
    assert (same.low, same.is_noise, same.is_constant) == (0.0, True, False)


def test_the_interval_of_a_mean_over_seeds():
    """1, 2, 3: 2 +- 4.303 / sqrt(3)."""
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((-0.484, 4.484), abs=1e-3)
    assert mean_interval([1.0]) is None
    assert mean_interval([]) is None
    assert mean_interval([75.0, 75.0]) is None  # two seeds that agree make nothing certain
    assert mean_interval([0.1 + 0.2, 0.3]) is None


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10, 40])
def test_the_detectable_difference_is_found_four_times_in_five(num_seeds):
    """By trying: differences of sd 3 about it, tested as `difference` does."""
    sd, rng = 3.0, np.random.default_rng(0)
    drawn = rng.normal(detectable_difference(sd, num_seeds), sd, size=(100_000, num_seeds))
    half = student_t_975(num_seeds - 1) * drawn.std(axis=1, ddof=1) / num_seeds**0.5
    assert (abs(drawn.mean(axis=1)) > half).mean() == pytest.approx(0.8, abs=0.005)
