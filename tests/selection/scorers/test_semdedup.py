"""semdedup against its definition, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import ConfigError
from prism_tune.selection.scorers.clusters.kmeans import cluster
from prism_tune.selection.scorers.clusters.semdedup import find_duplicates


def unit_rows(num_rows, width, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num_rows, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def duplicates_by_definition(rows, clusters, inward):
    similar = np.full(len(rows), -1.0)
    for i in range(len(rows)):
        before = [
            rows[i] @ rows[j]
            for j in range(len(rows))
            if clusters[j] == clusters[i] and (inward[j], j) < (inward[i], i)
        ]
        similar[i] = max(before, default=-1.0)
    return similar


def test_similarity_is_to_what_stands_before_in_the_cluster():
    rows, rng = unit_rows(150, 4), np.random.default_rng(1)
    clusters, inward = rng.integers(0, 5, 150), rng.integers(0, 20, 150) / 20
    expected = duplicates_by_definition(rows, clusters, inward)
    np.testing.assert_allclose(find_duplicates(rows, clusters, inward), expected, atol=1e-12)


def test_blocks_do_not_show():
    rows = unit_rows(1500, 3)
    inward = np.arange(1500) / 1500
    similar = find_duplicates(rows, np.zeros(1500, dtype=int), inward)
    for i in (1, 1023, 1024, 1499):
        assert similar[i] == pytest.approx((rows[:i] @ rows[i]).max())


def test_k_means_has_converged_and_repeats_itself():
    rows = np.concatenate([unit_rows(30, 3) * 0.05 + axis for axis in np.eye(3)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    clusters, inward = cluster(rows, 3, 0, 20)
    centroids = np.stack([rows[clusters == c].mean(axis=0) for c in range(3)])
    cosines = rows @ (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(cosines.argmax(axis=1), clusters)
    np.testing.assert_allclose(cosines.max(axis=1), inward, atol=1e-6)
    np.testing.assert_array_equal(cluster(rows, 3, 0, 20)[1], inward)


def test_planted_duplicates_go_first(make_table):
    rows = unit_rows(40, 8)
    copies = rows[:20] + 1e-3 * unit_rows(20, 8, seed=1)
    kept = make_table(np.concatenate([rows, copies])).select("semdedup", budget=40, num_clusters=3)
    # of each original and its copy one is kept, where k-means put both into one cluster: all here
    assert sorted({int(uid[4:]) % 40 for uid in kept}) == list(range(40))


def test_a_threshold_splits_duplicates_from_the_rest(make_table):
    rows = unit_rows(30, 8)
    table = make_table(rows, np.arange(40) % 30)
    scored = table.run("semdedup", threshold=0.99, num_clusters=2)
    assert scored.diagnostics["num_duplicates"] == 10
    assert (scored.values_M >= 0.99).sum() == 10
    assert (scored.values_M < 0).sum() == 30
    first = table.select("semdedup", threshold=0.99, budget=10, seed=1)
    assert first != table.select("semdedup", threshold=0.99, budget=10, seed=2)


def test_records_of_one_image_are_duplicates(make_table):
    table = make_table(unit_rows(10, 4), np.arange(30) % 10)
    values = np.array(list(table.score("semdedup").values()))
    assert (values == 1.0).sum() == 20
    kept = table.select("semdedup", budget=10)
    assert sorted(int(uid[4:]) % 10 for uid in kept) == list(range(10))


def test_a_threshold_that_is_no_cosine_is_refused(clustered):
    with pytest.raises(ConfigError, match="`threshold` = 2: expected a cosine from -1 to 1"):
        clustered.run("semdedup", threshold=2)
