"""Redundancy scores against the N x N definition."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from prism_tune.errors import UserError
from prism_tune.features.redundancy import redundancy_scores, score_redundancy
from prism_tune.features.spectrum import measure_anisotropy

CENTERINGS = ["corpus", "pearson", "none"]


def score_by_definition(features, centering, groups):
    """R_i = 1/(N-1) sum_{j != i} u_i.u_j, written out pair by pair inside each group."""
    scores = np.zeros(len(features))
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        rows = features[members].astype(np.float64)
        if centering == "corpus":
            rows = rows - rows.mean(axis=0)
        if centering == "pearson":
            rows = rows - rows.mean(axis=1, keepdims=True)
        units = [row / np.linalg.norm(row) for row in rows]
        for i, place in enumerate(members):
            others = [float(units[i] @ units[j]) for j in range(len(units)) if j != i]
            scores[place] = sum(others) / len(others) if others else 0.0
    return scores


def draw_features(num_records=60, width=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_records, width)) + 3 * rng.standard_normal(width)


@pytest.mark.parametrize("scope", ["global", "per_source"])
@pytest.mark.parametrize("centering", CENTERINGS)
def test_equals_the_definition(centering, scope):
    features = draw_features()
    groups = ["all"] * 60 if scope == "global" else [f"s{i * i % 7}" for i in range(60)]
    labels = None if scope == "global" else np.array(groups)
    expected = score_by_definition(features, centering, groups)
    for block_rows in (None, 1, 7, 60):
        scores = score_redundancy(
            features, centering=centering, groups_N=labels, block_rows=block_rows
        ).values_N
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("centering", CENTERINGS)
def test_half_precision_memory_map_is_close(tmp_path, centering):
    path = tmp_path / "features.npy"
    np.save(path, draw_features(200, 700).astype(np.float16))
    mapped = np.load(path, mmap_mode="r")
    exact = redundancy_scores(np.asarray(mapped, dtype=np.float64), centering=centering)
    np.testing.assert_allclose(
        redundancy_scores(mapped, centering=centering), exact, rtol=0, atol=2e-7
    )


def test_two_opposite_records_by_hand():
    # mean (1, 0); centred (2, 0), (-2, 0): cosine -1.
    assert redundancy_scores(np.array([[3.0, 0.0], [-1.0, 0.0]])).tolist() == [-1.0, -1.0]


def test_raw_cosine_by_hand():
    features = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        redundancy_scores(features, centering="none"), [0.3, 0.4, 0.7], atol=1e-15
    )


def test_normalised_after_centring():
    """Un-normalised centred row sums are identically 0: ranking them ranks rounding noise."""
    features = draw_features()
    centred = features - features.mean(axis=0)
    assert np.abs(centred @ centred.sum(axis=0)).max() < 1e-9
    assert redundancy_scores(features).std() > 1e-4


def test_scores_do_not_depend_on_the_length_of_the_centred_feature():
    features = draw_features()
    stretched = features.copy()
    stretched[0] *= 50
    stretched[1] *= 0.01
    np.testing.assert_allclose(
        redundancy_scores(features, centering="none"),
        redundancy_scores(stretched, centering="none"),
        atol=1e-12,
    )


def test_order_of_the_pool_does_not_matter():
    features = draw_features()
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(
        redundancy_scores(features[order]), redundancy_scores(features)[order], rtol=0, atol=1e-13
    )


def test_near_duplicates_are_ranked_redundant():
    features = np.random.default_rng(3).standard_normal((20, 8))
    features[:6] = features[0] + 0.01 * features[:6]
    assert set(np.argsort(redundancy_scores(features))[-6:].tolist()) == set(range(6))


def test_shared_rows_have_bit_equal_scores_and_count_every_time():
    features = draw_features(10)
    inverse = np.array([0, 1, 2, 1, 1, 9, 4, 0])
    groups = np.array(["a", "a", "b", "a", "b", "b", "a", "a"])
    result = score_redundancy(features, groups_N=groups, inverse_N=inverse)
    expected = score_by_definition(features[inverse], "corpus", groups.tolist())
    np.testing.assert_allclose(result.values_N, expected, rtol=0, atol=1e-12)
    assert result.values_N[1] == result.values_N[3]
    assert result.values_N[0] == result.values_N[7]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_equal_features_leave_no_rounding_noise(dtype, caplog):
    features = np.tile(draw_features(1), (9, 1)).astype(dtype)
    with caplog.at_level(logging.WARNING):
        assert redundancy_scores(features).tolist() == [0.0] * 9
    assert "9 records have a centred feature of zero" in caplog.text


@pytest.mark.parametrize(("apart", "num_zero_norm"), [(6e-8, 40), (1e-4, 0)])
def test_a_source_of_one_picture_in_many_files_has_no_direction(apart, num_zero_norm):
    """Stored in float32 its features differ by the last bit, whatever they are computed in."""
    others = draw_features(20, 32)
    noise = np.random.default_rng(1).choice([-1.0, 1.0], size=(40, 32))
    same = np.tile(others[:1], (40, 1)) * (1 + apart * noise)
    features = np.concatenate([same, others]).astype(np.float32)
    groups = np.repeat(["same", "others"], [40, 20])
    result = score_redundancy(features, groups_N=groups)
    assert len(np.unique(features[:40], axis=0)) > 1
    assert result.num_zero_norm == num_zero_norm
    assert result.zero_N[:40].all() == (num_zero_norm == 40)
    assert (result.values_N[:40] == 0).all() == (num_zero_norm == 40)


def test_zero_norm_record_scores_zero_and_is_counted():
    features = np.array([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]])
    result = score_redundancy(features, centering="none")
    np.testing.assert_allclose(result.values_N, [0.4, 0.0, 0.4])
    assert (result.num_zero_norm, result.num_non_finite) == (1, 0)


def test_constant_feature_has_no_pearson_correlation():
    features = np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]])
    result = score_redundancy(features, centering="pearson")
    assert result.values_N[0] == 0.0
    assert result.num_zero_norm == 1


@pytest.mark.parametrize("centering", CENTERINGS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_record_that_is_not_finite_does_not_spoil_the_others(centering, bad):
    features = draw_features()
    features[7, 3] = bad
    others = np.delete(features, 7, axis=0)
    result = score_redundancy(features, centering=centering, block_rows=8)
    assert result.values_N[7] == 0.0
    assert (result.num_zero_norm, result.num_non_finite) == (0, 1)
    expected = redundancy_scores(others, centering=centering) * (58 / 59)
    np.testing.assert_allclose(np.delete(result.values_N, 7), expected, rtol=0, atol=1e-12)


def test_record_alone_in_its_source_scores_zero():
    scores = redundancy_scores(draw_features(3), groups_N=np.array(["a", "b", "a"]))
    assert scores[1] == 0.0


def test_single_record_scores_zero():
    for centering in CENTERINGS:
        assert redundancy_scores(draw_features(1), centering=centering).tolist() == [0.0]


@pytest.mark.parametrize(
    ("features", "groups", "message"),
    [
        (np.zeros((0, 4)), None, "nothing to score"),
        (np.zeros(4), None, "expected a matrix"),
        (np.zeros((2, 2), dtype=int), None, "floating-point"),
        (np.zeros((2, 2)), np.array(["a"]), "1 labels for 2 records"),
    ],
)
def test_unusable_input_is_refused(features, groups, message):
    with pytest.raises(UserError, match=message):
        redundancy_scores(features, groups_N=groups)


def test_anisotropy_equals_the_mean_of_all_pairs():
    features = draw_features(50, 20)
    result = measure_anisotropy(features)
    raw = score_by_definition(features, "none", ["x"] * 50)
    centred = score_by_definition(features, "corpus", ["x"] * 50)
    assert result["mean_cosine_raw"] == pytest.approx(raw.mean(), abs=1e-12)
    assert result["mean_cosine_centred"] == pytest.approx(centred.mean(), abs=1e-12)
    spectrum = np.linalg.svd(features - features.mean(axis=0), compute_uv=False) ** 2
    assert result["variance_share_top_1"] == pytest.approx(spectrum[0] / spectrum.sum())
    assert result["variance_share_top_10"] == pytest.approx(spectrum[:10].sum() / spectrum.sum())
    assert result["num_rows_in_spectrum"] == 50


def test_anisotropy_leaves_out_rows_that_no_record_has():
    """Stores hand out whole shards, with rows of other pools between the own ones."""
    own = draw_features(50, 20)
    shared = np.repeat(own, 2, axis=0)
    shared[1::2] = 1e3 * np.arange(50)[:, None]
    rows = np.arange(0, 100, 2)
    assert measure_anisotropy(shared, inverse_N=rows) == pytest.approx(measure_anisotropy(own))
    sampled = measure_anisotropy(shared, inverse_N=rows, max_rows=16)
    assert sampled["num_rows_in_spectrum"] == 16
    assert sampled["variance_share_top_1"] < 0.5


def test_anisotropy_of_many_rows_samples_the_spectrum_and_says_so():
    assert measure_anisotropy(draw_features(40, 6), max_rows=16)["num_rows_in_spectrum"] == 16
