"""Groups of near-duplicates and clusters, of features whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.features import likeness
from prism_tune.features.likeness import Sketches, find_clusters, find_duplicates


def draw(width, num_groups=20, num_alone=60):
    """Three of each group at a cosine of about 0.99, and others; all in a narrow cone."""
    drawn = np.random.default_rng(0)
    centres = drawn.normal(size=(num_groups, width))
    near = np.concatenate([centres + 0.1 * drawn.normal(size=centres.shape) for _ in range(3)])
    return np.concatenate([near, drawn.normal(size=(num_alone, width))]).astype(np.float32) + 9


def sketch(values_UD):
    """Of one source."""
    return Sketches(values_UD, np.zeros(len(values_UD), dtype=np.int64))


@pytest.mark.parametrize("width", [48, 400])  # as they are, and by sketches
@pytest.mark.parametrize("one_cell", [8192, 50])
def test_near_duplicates_are_the_planted_ones(width, one_cell, monkeypatch):
    monkeypatch.setattr(likeness, "_ONE_CELL", one_cell)
    monkeypatch.setattr(likeness, "_PER_CELL", 40)
    monkeypatch.setattr(likeness, "_BLOCK_BYTES", 4096)
    values_UD = draw(width)
    label_U = find_duplicates(sketch(values_UD))
    assert label_U[:60].tolist() == list(range(20)) * 3
    assert set(label_U[60:]) == {-1}


def test_a_pair_is_judged_by_the_features_and_not_by_the_sketches():
    """Cosines of 0.97 and 0.92; the sketches have to look at both."""
    drawn = np.random.default_rng(1)
    values_UD = drawn.normal(size=(300, 600)).astype(np.float32)
    values_UD[1] = values_UD[0] + 0.25 * values_UD[2]
    values_UD[4] = values_UD[3] + 0.43 * values_UD[5]
    label_U = find_duplicates(sketch(values_UD))
    assert np.flatnonzero(label_U >= 0).tolist() == [0, 1]


def test_rows_that_are_not_finite_or_all_equal_are_like_nothing():
    values_UD = draw(48)
    values_UD[0] = np.nan
    assert find_duplicates(sketch(values_UD))[0] == -1
    same_UD = np.full((40, 48), 3.3, dtype=np.float32)
    assert set(find_duplicates(sketch(same_UD))) == {-1}
    assert find_clusters(sketch(same_UD[:1])).tolist() == [0]


def test_clusters_are_the_planted_ones():
    drawn = np.random.default_rng(0)
    centres = 5 * drawn.normal(size=(5, 100))
    values_UD = np.repeat(centres, 40, axis=0) + drawn.normal(size=(200, 100))
    cluster_U = find_clusters(sketch(values_UD.astype(np.float32)))
    assert len(set(cluster_U)) == 5
    assert all(len(set(part)) == 1 for part in cluster_U.reshape(5, 40))


@pytest.mark.parametrize("width", [48, 400])
def test_what_all_records_of_a_source_share_makes_no_near_duplicates(width):
    """Two sources far apart: of one pool everything in the small one is alike."""
    drawn = np.random.default_rng(0)
    values_UD = drawn.normal(size=(420, width)).astype(np.float32)
    values_UD[400:] += 100
    values_UD[1] = values_UD[0] + 0.01
    values_UD[411] = values_UD[410] + 0.01
    values_UD[412] = values_UD[0] + 100  # the same, seen from the other centre
    source_U = np.repeat([0, 7], [400, 20])
    assert (find_duplicates(sketch(values_UD))[400:] >= 0).all()
    label_U = find_duplicates(Sketches(values_UD, source_U))
    assert np.flatnonzero(label_U >= 0).tolist() == [0, 1, 410, 411]
    assert label_U[0] == label_U[1] != label_U[410] == label_U[411]


def test_a_source_of_a_few_is_centred_among_all():
    values_UD = draw(48)
    source_U = np.arange(len(values_UD)) // 2  # pairs: their own mean would make them opposites
    source_U[:60] = np.arange(60) % 20 + 500  # the planted three of each
    label_U = find_duplicates(Sketches(values_UD, source_U))
    assert label_U[:60].tolist() == list(range(20)) * 3
