"""Streaming principal components against NumPy's own."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import UserError
from prism_tune.features import reduction
from prism_tune.features.reduction import find_finite, reduce_features
from prism_tune.features.row_pairs import pair_rows


def test_rows_are_those_of_a_singular_value_decomposition(monkeypatch):
    monkeypatch.setattr(reduction, "_BLOCK_BYTES", 8 * 5 * 7)  # seven rows a block
    monkeypatch.setattr(reduction, "_STRIP", 2)
    rows = (np.random.default_rng(0).normal(size=(60, 5)) * [1, 2, 3, 4, 5] + 1000).astype("f4")
    row_of = np.random.default_rng(1).integers(0, 60, 100)
    pairs = pair_rows(60, None, row_of)
    reduced = reduce_features(rows, pairs, num_components=3, normalise=False)
    records = rows[row_of].astype(float)
    left, sizes, _ = np.linalg.svd(records - records.mean(axis=0), full_matrices=False)
    expected = np.abs(left[:, :3] * sizes[:3])
    np.testing.assert_allclose(np.abs(pairs.spread(reduced.values_PK)), expected, atol=1e-9)


def test_whitened_components_have_variance_one():
    rows = np.random.default_rng(0).normal(size=(60, 3)) * [1, 10, 100]
    pairs = pair_rows(60, None, None)
    whitened = reduce_features(
        rows, pairs, num_components=None, whitening=True, normalise=False
    ).values_PK
    np.testing.assert_allclose(whitened.T @ whitened / 60, np.eye(3), atol=1e-9)


def test_groups_are_centred_apart_and_rows_are_unit_vectors():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    rows[20:] += 50
    pairs = pair_rows(40, np.repeat(["a", "b"], 20), None)
    centred = reduce_features(rows, pairs, num_components=None, normalise=False).values_PK
    np.testing.assert_allclose(centred[:20].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(centred[20:].mean(axis=0), 0, atol=1e-12)
    units = reduce_features(rows, pairs, num_components=None).values_PK
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1)


def test_directions_that_do_not_vary_are_left_out():
    rows = np.random.default_rng(0).normal(size=(40, 2)) @ np.ones((2, 6)) + 5
    reduced = reduce_features(rows, pair_rows(40, None, None), num_components=4)
    assert reduced.diagnostics == {"num_components": 1, "num_zero_norm": 0, "num_non_finite": 0}


def test_equal_features_leave_nothing():
    rows = np.full((9, 4), 0.1) * 3
    reduced = reduce_features(rows, pair_rows(9, None, None), num_components=4)
    assert reduced.values_PK.shape == (9, 0)
    assert reduced.num_zero_norm == 9


@pytest.mark.parametrize("whitening", [False, True])
@pytest.mark.parametrize(("apart", "num_zero_norm"), [(6e-8, 40), (1e-4, 0)])
def test_a_source_that_differs_by_the_last_bit_has_no_rows(apart, num_zero_norm, whitening):
    """One picture in many files, stored in float32, beside an ordinary source."""
    rng = np.random.default_rng(0)
    others = rng.normal(size=(60, 8)) + 3
    same = np.tile(others[:1], (40, 1)) * (1 + apart * rng.choice([-1.0, 1.0], size=(40, 8)))
    rows = np.concatenate([same, others]).astype(np.float32)
    pairs = pair_rows(100, np.repeat(["a", "b"], [40, 60]), None)
    reduced = reduce_features(rows, pairs, num_components=None, whitening=whitening)
    assert reduced.num_zero_norm == num_zero_norm
    assert reduced.zero_P[:40].all() == (num_zero_norm == 40)


def test_rows_that_are_finite(monkeypatch):
    monkeypatch.setattr(reduction, "_BLOCK_BYTES", 8 * 2 * 2)  # two rows a block
    rows = np.array([[0, 1], [np.nan, 1], [1, -np.inf], [0, 0], [np.inf, np.nan]], dtype="f2")
    assert find_finite(rows).tolist() == [True, False, False, True, False]
    with pytest.raises(UserError, match="matrix of floating-point numbers"):
        find_finite(np.ones((2, 2), dtype=int))
