"""The amortised visual gain against refits without each record; ranks by hand; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import UserError
from prism_tune.features.row_pairs import pair_rows
from prism_tune.selection.scorers.kernels import gain
from prism_tune.selection.scorers.kernels.density import Rbf
from prism_tune.selection.scorers.kernels.gain import fit_ridge, predict_gain, rank_inside
from prism_tune.selection.scorers.kernels.short_rows import ShortRows

OPTIONS = {"gamma": 4.0, "gain_share": 0.5}


def refit(features, targets, groups, ridge):
    """Ridge with an intercept of each group, which is not shrunk: the normal equations."""
    intercepts = np.eye(groups.max() + 1)[groups]
    design = np.concatenate([features, intercepts], axis=1)
    shrunk = np.diag([ridge] * features.shape[1] + [0.0] * intercepts.shape[1])
    return np.linalg.lstsq(design.T @ design + shrunk, design.T @ targets, rcond=None)[0]


def test_the_error_left_one_out_is_that_of_refits_and_the_best_of_it_is_taken():
    rng = np.random.default_rng(0)
    groups = np.array([0] * 9 + [1] * 6 + [2] * 2)
    features = rng.normal(size=(17, 4)) + groups[:, None]
    targets = features @ rng.normal(size=4) + 5.0 * groups + rng.normal(size=17)
    weights, r2 = fit_ridge(features, targets, groups)
    centred = features - np.array([features[groups == g].mean(axis=0) for g in groups])
    largest = np.linalg.eigvalsh(centred.T @ centred)[-1]
    found = []
    for ridge in gain._RIDGES * largest:
        errors, of_means = 0.0, 0.0
        for n in range(17):
            rest = np.arange(17) != n
            fit = refit(features[rest], targets[rest], groups[rest], ridge)
            errors += (targets[n] - features[n] @ fit[:4] - fit[4 + groups[n]]) ** 2
            of_means += (targets[n] - targets[rest & (groups == groups[n])].mean()) ** 2
        found.append((errors, 1 - errors / of_means, refit(features, targets, groups, ridge)[:4]))
    _, expected, of_best = min(found, key=lambda each: each[0])
    assert r2 == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(weights, of_best, rtol=1e-6)


def draw_rows(num_records=60, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_records, 6))
    pairs = pair_rows(num_records, np.arange(num_records) % 2, np.arange(num_records))
    return ShortRows(pairs, values, 3)


def test_the_prediction_is_kernel_ridge_with_as_many_landmarks_as_records():
    """f = sum_j c_j k(x, x_j), k the linear kernel and the product of both RBFs."""
    rows, rbf = draw_rows(), Rbf(1.0, 1.0, 2.0, 3)
    measured = np.arange(60) % 3 > 0
    gains = np.where(measured, np.tanh(rows.values_PK @ np.arange(6.0)), np.nan)
    order = np.random.default_rng(1).permutation(60)
    found = predict_gain(gains, rows, rows.pairs.group_P, rbf, order)
    x = rows.values_PK
    squares = (x[:, None] - x) ** 2
    kernel = x @ x.T
    kernel += np.exp(-squares[:, :, :3].sum(axis=2) / 2 - squares[:, :, 3:].sum(axis=2) / 4)
    groups, known = np.arange(60) % 2, order[measured[order]]
    same = groups[known][:, None] == groups[known]
    centre = np.eye(len(known)) - same / same.sum(axis=1)
    inside = centre @ kernel[np.ix_(known, known)] @ centre
    errors = []
    for ridge in gain._RIDGES * np.linalg.eigvalsh(inside)[-1]:
        smoother = inside @ np.linalg.inv(inside + ridge * np.eye(len(known)))
        left = centre @ gains[known] - smoother @ centre @ gains[known]
        left /= 1 - 1 / same.sum(axis=1) - np.diag(smoother)
        dual = centre @ np.linalg.solve(inside + ridge * np.eye(len(known)), centre @ gains[known])
        errors.append(((left**2).sum(), kernel[:, known] @ dual))
    error, expected = min(errors, key=lambda each: each[0])
    np.testing.assert_allclose(found.gain_M, expected, atol=1e-6)
    by_means = (centre @ gains[known]) / (1 - 1 / same.sum(axis=1))
    assert found.r2 == pytest.approx(1 - error / (by_means**2).sum())
    assert found.num_measured == 40


def test_fewer_landmarks_say_nearly_the_same():
    rows, rbf = draw_rows(600), Rbf(1.0, 1.0, 2.0, 3)
    gains = np.tanh(rows.values_PK @ np.arange(6.0))
    exact = predict_gain(gains, rows, rows.pairs.group_P, rbf, np.arange(600))
    fewer = predict_gain(gains, rows, rows.pairs.group_P, rbf, np.arange(600), 150)
    assert np.corrcoef(exact.gain_M, fewer.gain_M)[0, 1] > 0.95


def test_ranks_by_hand():
    """Of 3, 1, 1, 2 the two ones share the first half: (0 + 2)/2/4."""
    values, groups = np.array([3.0, 1.0, 7.0, 1.0, 2.0]), np.array([0, 0, 1, 0, 0])
    assert rank_inside(values, groups).tolist() == [0.875, 0.25, 0.5, 0.25, 0.625]


@pytest.fixture
def told(make_table):
    """200 records whose gain their texts tell, measured on every second."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(200, 8))
    gains = np.where(np.arange(200) % 2, texts[:, 0], np.nan)
    sources = ["a" if n % 3 else "b" for n in range(200)]
    return make_table(rng.normal(size=(200, 8)), sources=sources, texts_ND=texts, gain_N=gains)


def mean_first(table, **options):
    kept = table.select("kernel_repulsion", budget=0.2, **options)
    return np.mean([table.texts_ND[n, 0] for n, uid in enumerate(table.uids) if uid in kept])


def test_records_of_a_higher_gain_are_kept_measured_or_not(told):
    scored = told.run("kernel_repulsion", **OPTIONS)
    assert scored.diagnostics["gain_r2"] > 0.5
    assert scored.diagnostics["num_gains_measured"] == 100
    assert mean_first(told, **OPTIONS) > 0.5
    assert abs(mean_first(told)) < 0.25
    kept = told.select("kernel_repulsion", budget=0.2, **OPTIONS)
    unmeasured = [n for n, uid in enumerate(told.uids) if uid in kept and n % 2 == 0]
    assert np.mean(told.texts_ND[unmeasured, 0]) > 0.5


def test_a_shuffled_gain_knows_nothing(told):
    means = [mean_first(told, **OPTIONS, shuffle_gain=True, seed=seed) for seed in range(5)]
    assert abs(np.mean(means)) < 0.25


def test_a_gain_that_cannot_be_predicted_is_refused(told):
    told.gain_N = np.where(np.arange(200) % 2, np.random.default_rng(5).normal(size=200), np.nan)
    with pytest.raises(UserError, match=r"measured on 100 records .* R\^2 = -?0\.0\d inside") as e:
        told.run("kernel_repulsion", **OPTIONS)
    assert "selection.options.gain_share" in str(e.value)


@pytest.mark.parametrize("gains", [np.full(200, 1.0), np.where(np.arange(200) < 1, 1.0, np.nan)])
def test_gains_that_are_all_equal_or_one_say_nothing(gains, told):
    told.gain_N = gains
    with pytest.raises(UserError, match=r"leave-one-out R\^2 = 0\.00"):
        told.run("kernel_repulsion", **OPTIONS)


def two_sources(make_table, inside_N):
    """400 records, in turn of two sources, whose gains are 0 and 3 and what is said inside."""
    rng = np.random.default_rng(1)
    texts = rng.normal(size=(400, 5))
    rows = rng.normal(size=(400, 6)) + 6.0 * (np.arange(400) % 2)[:, None] * np.eye(6)[5]
    gains = 3.0 * (np.arange(400) % 2) + inside_N(texts, rng)
    sources = ["ab"[n % 2] for n in range(400)]
    return make_table(rows, sources=sources, texts_ND=texts, gain_N=gains)


@pytest.mark.parametrize("scope", ["per_source", "global"])
def test_a_gain_that_tells_the_sources_apart_and_no_more_is_refused(scope, make_table):
    table = two_sources(make_table, lambda texts, rng: 0.5 * rng.normal(size=400))
    with pytest.raises(UserError, match=r"leave-one-out R\^2 = -?0\.0\d inside sources"):
        table.run("kernel_repulsion", gamma=2.0, scope=scope)


@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_are_inside_sources_also_where_the_pool_is_cut_as_one(shuffle, make_table):
    """Where the rank decides alone, the first 40 are the best 20 of each source."""
    table = two_sources(make_table, lambda texts, rng: texts[:, 0])
    options = {"alpha": 0.0, "beta": 0.0, "gamma": 1e6, "shuffle_gain": shuffle}
    scored = table.run("kernel_repulsion", budget=40, scope="global", **options)
    first = np.argsort(scored.values_M, kind="stable")[:40]
    assert np.bincount(first % 2).tolist() == [20, 20]
    assert scored.diagnostics["gain_r2"] > 0.5
