"""leverage against the hat matrix by definition."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import ConfigError


def hat_diagonal(rows, ridge=0.0):
    centred = rows - rows.mean(axis=0)
    gram = centred.T @ centred
    damped = gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.diag(centred @ np.linalg.inv(damped) @ centred.T)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_all_components_give_the_hat_matrix(make_table, ridge):
    rows = np.random.default_rng(0).normal(size=(50, 6)) * [1, 2, 3, 4, 5, 6] + 10
    scores = make_table(rows).score("leverage", num_components=None, ridge=ridge)
    assert list(scores.values()) == pytest.approx(list(hat_diagonal(rows, ridge)), abs=1e-10)


def test_leading_components_give_the_left_singular_vectors(make_table):
    rows = np.random.default_rng(0).normal(size=(50, 6)) * [1, 2, 3, 4, 5, 6]
    left = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[0][:, :2]
    scores = make_table(rows).score("leverage", num_components=2)
    assert list(scores.values()) == pytest.approx(list((left**2).sum(axis=1)), abs=1e-10)


def test_records_of_one_image_count_as_often_as_they_occur(make_table):
    rows = np.random.default_rng(0).normal(size=(20, 3))
    row_of = np.append(np.arange(20), [4, 4, 7])
    scores = make_table(rows, row_of).score("leverage", num_components=None)
    assert list(scores.values()) == pytest.approx(list(hat_diagonal(rows[row_of])), abs=1e-10)


def test_sources_are_measured_apart(make_table):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    rows[20:] += 100
    scores = make_table(rows, sources=["a"] * 20 + ["b"] * 20).score(
        "leverage", num_components=None
    )
    expected = np.concatenate([hat_diagonal(rows[:20]), hat_diagonal(rows[20:])])
    assert list(scores.values()) == pytest.approx(list(expected), abs=1e-8)


def test_by_hand_the_outlier_comes_first(make_table):
    scores = make_table([[0.0], [0.0], [0.0], [4.0]]).score("leverage")
    # centred: -1 -1 -1 3, sum of squares 12
    assert list(scores.values()) == pytest.approx([1 / 12, 1 / 12, 1 / 12, 9 / 12])


def test_a_negative_ridge_is_refused(clustered):
    with pytest.raises(ConfigError, match=r"`ridge` = -0\.1: expected greater than or equal to 0"):
        clustered.run("leverage", ridge=-0.1)
