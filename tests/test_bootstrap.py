"""The bootstrap over questions, against what theory says of a mean."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.intervals import percentile_interval, resample_means


def test_the_bootstrap_has_the_variance_of_a_mean():
    credits_RQ = np.array([[1.0] * 300 + [0.0] * 100])
    means_B = resample_means(credits_RQ, np.ones((1, 400), bool))[:, 0, 0]
    assert means_B.shape == (2000,)
    assert means_B.mean() == pytest.approx(75, abs=0.2)
    assert means_B.std() == pytest.approx(100 * (0.75 * 0.25 / 400) ** 0.5, rel=0.05)


def test_the_bootstrap_is_the_same_every_time_and_in_any_block(monkeypatch):
    credits_RQ = np.random.default_rng(1).random((2, 50))
    masks_CQ = np.ones((1, 50), bool)
    whole = resample_means(credits_RQ, masks_CQ)
    assert (whole == resample_means(credits_RQ, masks_CQ)).all()
    monkeypatch.setattr("prism_tune.intervals._QUESTION_BLOCK", 50 * 700)
    np.testing.assert_allclose(resample_means(credits_RQ, masks_CQ), whole)


def test_the_interval_is_the_central_95_percent():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert percentile_interval(np.array([1.0, np.nan])) is None
    assert percentile_interval(np.array([1.0, np.inf])) is None
