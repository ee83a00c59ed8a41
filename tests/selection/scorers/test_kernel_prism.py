"""kernel_prism against kernel densities by definition, and its race by hand."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import ConfigError
from prism_tune.selection.scorers.kernels.density import Rbf, choose_bandwidth, mean_kernel
from prism_tune.selection.scorers.kernels.kernel_prism import race


def unit_rows(num_rows, width, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num_rows, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def densities_by_definition(rows, counts, bandwidth):
    records = np.repeat(rows, counts, axis=0)
    distances = ((records[:, None] - records) ** 2).sum(axis=2)
    kernel = np.exp(-distances / (2 * bandwidth))
    densities = (kernel.sum(axis=1) - 1) / (len(records) - 1)
    return densities[np.cumsum(counts) - 1]


def test_densities_are_the_kernels_where_all_are_landmarks():
    rows, counts = unit_rows(60, 3), np.random.default_rng(1).integers(1, 4, 60)
    landmarks = np.repeat(np.arange(60), counts)
    expected = densities_by_definition(rows, counts, 0.1)
    found = mean_kernel(rows, counts, landmarks, Rbf(0.1))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_landmarks_rank_as_all_records_do():
    """600 of 3,000 records in 64 components, in concepts of unequal sizes."""
    rng = np.random.default_rng(0)
    centres = unit_rows(40, 64)[np.minimum(rng.exponential(8, 3000).astype(int), 39)]
    rows = centres + rng.uniform(0.03, 0.1, (3000, 1)) * rng.normal(size=(3000, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    counts = np.ones(3000, dtype=int)
    exact = mean_kernel(rows, counts, np.arange(3000), Rbf(0.2))
    found = mean_kernel(rows, counts, np.arange(600), Rbf(0.2))
    ranks = [np.argsort(np.argsort(values)) for values in (exact, found)]
    assert np.corrcoef(*ranks)[0, 1] > 0.95
    assert found.mean() == pytest.approx(exact.mean(), rel=0.05)


def test_a_landmark_leaves_itself_out():
    """Rows opposite each other, the first a landmark: its density is that of its like."""
    rows = np.array([[1.0], [1.0], [-1.0]])
    found = mean_kernel(rows, np.ones(3, dtype=int), np.array([0, 2]), Rbf(1.0))
    far = np.exp(-2.0)
    np.testing.assert_allclose(found, [far, (1 + far) / 2, far])


def test_score_by_hand_without_chance(make_table):
    """Two pairs of equal records, opposite each other: squared distance 4."""
    table = make_table([[1.0], [1.0], [-1.0], [-1.0]])
    scores = table.score("kernel_prism", alpha="inf", bandwidth=1.0)
    # (1 + 2 exp(-4/2)) / 3
    assert list(scores.values()) == pytest.approx([0.423557] * 4, abs=1e-6)


@pytest.mark.parametrize("scorer", ["kernel_prism", "kernel_repulsion"])
def test_the_pools_order_changes_nothing_where_few_are_landmarks(scorer, clustered):
    wanted = clustered.select(scorer, num_landmarks=16)
    assert clustered.shuffled(2).select(scorer, num_landmarks=16) == wanted


def test_race_by_hand():
    hashes = np.array([1 << 63, 3 << 62], dtype=np.uint64)  # u = 1/2 and 1/4
    densities = np.array([0.5, 0.25])
    np.testing.assert_allclose(
        np.exp(race(densities, hashes, 1.0)), [0.5 * np.log(2), np.log(4) / 4]
    )
    np.testing.assert_allclose(np.exp(race(densities, hashes, 0.0)), [np.log(2), np.log(4)])
    assert race(densities, hashes, np.inf).tolist() == [0.5, 0.25]


@pytest.mark.parametrize("seed", [0, 3])
def test_at_rate_zero_the_subset_is_that_of_random(clustered, seed):
    by_chance = clustered.select("random", seed=seed)
    assert clustered.select("kernel_prism", seed=seed, alpha=0.0) == by_chance
    assert clustered.select("kernel_repulsion", seed=seed, alpha=0.0, beta=0.0) == by_chance


def test_race_floors_densities_and_never_overflows():
    hashes = np.array([0, 2**64 - 1, 5], dtype=np.uint64)
    floored = race(np.array([-1.0, 0.0, 0.001]), hashes, 500.0)
    assert np.isfinite(floored).all()
    assert floored[2] == race(np.full(3, -3.0), hashes, 500.0)[2]


def test_race_keeps_at_rates_of_inverse_density():
    """Of two records, the one with density .25 wins against .75 three times in four."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (4000, 2), dtype=np.uint64)
    keys = race(np.array([0.25, 0.75]), hashes, 1.0)
    assert (keys[:, 0] < keys[:, 1]).mean() == pytest.approx(0.75, abs=0.03)


def test_records_of_one_image_share_the_density_and_race_apart(make_table):
    rows = unit_rows(12, 4)
    table = make_table(rows, np.arange(24) % 12)
    lowest = list(table.score("kernel_prism", alpha="inf").values())
    assert lowest[:12] == lowest[12:]
    keys = list(table.score("kernel_prism").values())
    assert len(set(keys)) == 24


def test_dense_regions_are_thinned_not_emptied(clustered):
    clustered.sources = None
    rows = {uid: clustered.row_N[n] for n, uid in enumerate(clustered.uids)}
    kept = [rows[uid] for uid in clustered.select("kernel_prism", bandwidth="median")]
    in_halo = np.mean(np.array(kept) >= 70)
    assert in_halo > 1.5 * np.mean(clustered.row_N >= 70)
    assert min(kept) < 40


def test_bandwidth_rules_by_hand():
    rows = np.array([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9; to the nearest 1, 1, 4
    assert choose_bandwidth(rows, "median") == pytest.approx(0.4)
    assert choose_bandwidth(rows, "nearest") == 1.0
    assert choose_bandwidth(np.array([[0.0], [0.0], [3.0]]), "nearest") == 9.0
    assert choose_bandwidth(np.zeros((3, 1)), "median") == 1.0


def test_bandwidth_rules_reach_the_manifest(clustered):
    for rule in ("median", "nearest"):
        width = clustered.run("kernel_prism", bandwidth=rule).diagnostics["bandwidth"]
        other = clustered.shuffled(3).run("kernel_prism", bandwidth=rule).diagnostics["bandwidth"]
        assert width == pytest.approx(other)
        assert 0 < width < 4


def test_whitening_forgets_the_scale_of_a_direction(make_table):
    rows = np.random.default_rng(0).normal(size=(200, 3))
    options = {"alpha": "inf", "whitening": True, "num_components": 3}
    # Whitened features are the same up to a rotation, which the kernel does not see.
    plain = make_table(rows).score("kernel_prism", **options)
    stretched = make_table(rows * [1, 10, 100]).score("kernel_prism", **options)
    assert list(plain.values()) == pytest.approx(list(stretched.values()), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bandwidth": "mean"}, "`bandwidth` = 'mean': expected a positive number, median or near"),
        ({"bandwidth": 0}, "`bandwidth` = 0: expected a positive number"),
        ({"alpha": -1}, "`alpha` = -1: expected a number from 0, or inf"),
        ({"alpha": "nan"}, "`alpha` = 'nan': expected"),
        ({"num_landmarks": 0}, "`num_landmarks` = 0: expected greater than 0"),
        ({"num_features": 512}, "unknown key `num_features`"),
        ({"num_components": 0}, "`num_components` = 0"),
    ],
)
def test_options_are_refused_by_name(options, message, clustered):
    with pytest.raises(ConfigError, match=message):
        clustered.run("kernel_prism", **options)
