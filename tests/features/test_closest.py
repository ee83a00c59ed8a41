"""Neighbours against their definition, and what is said of records that share an image."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.features import closest
from prism_tune.features.closest import Candidates, Neighbour, find_neighbours
from prism_tune.features.shards import RecordFeatures


class Matrix:
    """Rows as the store gives them."""

    def __init__(self, values_UD):
        self._values_UD = np.asarray(values_UD, dtype=np.float32)
        self.shape, self.dtype = self._values_UD.shape, self._values_UD.dtype

    def __getitem__(self, rows):
        return self._values_UD[rows]


def records_of(kept, sources=None, ranked=None):
    """What is known of each record: ranked, kept, and its source."""
    number = len(kept)
    return (
        np.ones(number, dtype=bool) if ranked is None else np.asarray(ranked),
        np.asarray(kept, dtype=bool),
        np.asarray([0] * number if sources is None else sources, dtype=np.int32),
    )


def find(values_UD, row_N, records, rows, *, centering, scope="per_source"):
    ranked_N, kept_N, group_N = records
    features = RecordFeatures(Matrix(values_UD), np.asarray(row_N, dtype=np.int64))
    group_N = group_N if scope == "per_source" else np.zeros_like(group_N)
    return find_neighbours(Candidates(features, ranked_N, kept_N, group_N), centering, rows)


def test_by_hand_without_centring():
    """(1, 0): cosines 0.8 with (4, 3), 0 with (0, 1), -1 with (-2, 0)."""
    records = records_of([True, False, True, True])
    found = find(
        [[1, 0], [4, 3], [0, 1], [-2, 0]], range(4), records, [0], centering="none", scope="global"
    )
    assert [(n.row, n.num_sharing) for n in found[0].nearest] == [(1, 1), (2, 1), (3, 1)]
    assert [n.cosine for n in found[0].nearest] == pytest.approx([0.8, 0.0, -1.0])
    assert [n.row for n in found[0].nearest_kept] == [2, 3]
    assert found[0].same_image == ()


@pytest.mark.parametrize("centering", ["corpus", "pearson", "none"])
@pytest.mark.parametrize("scope", ["global", "per_source"])
def test_by_definition(centering, scope, monkeypatch):
    """Every record against the N x N matrix of cosines; a narrow cone, blocks of seven rows."""
    drawn = np.random.default_rng(0)
    values_UD = drawn.normal(size=(40, 12)) + 20 * drawn.normal(size=12)
    row_N = np.concatenate([np.arange(40), drawn.integers(0, 40, 30)])
    sources = drawn.integers(0, 3, 70)
    kept = drawn.random(70) < 0.4
    monkeypatch.setattr(closest, "_BLOCK_BYTES", 7 * 12 * 4)
    found = find(
        values_UD, row_N, records_of(kept, sources), range(70), centering=centering, scope=scope
    )
    groups = sources if scope == "per_source" else np.zeros(70, int)
    for row in range(70):
        group = np.flatnonzero(groups == groups[row])
        x = values_UD[row_N[group]]
        if centering == "corpus":
            x = x - x.mean(axis=0)
        elif centering == "pearson":
            x = x - x.mean(axis=1, keepdims=True)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        cosines = dict(zip(group.tolist(), (x @ x[group == row][0]).tolist(), strict=True))
        others = [other for other in group.tolist() if row_N[other] != row_N[row]]
        for nearest, among in (
            (found[row].nearest, others),
            (found[row].nearest_kept, [other for other in others if kept[other]]),
        ):
            distinct = {row_N[other]: cosines[other] for other in among}
            expected = sorted(distinct.values(), reverse=True)[:4]
            assert [n.cosine for n in nearest] == pytest.approx(expected, abs=2e-5)
            for n in nearest:
                assert n.cosine == pytest.approx(cosines[n.row], abs=2e-5)
                assert n.num_sharing == sum(
                    row_N[other] == row_N[n.row] for other in group.tolist()
                )
        assert all(kept[n.row] for n in found[row].nearest_kept)
        twins = [other for other in range(70) if row_N[other] == row_N[row] and other != row]
        assert found[row].num_same_image == len(twins)
        assert set(found[row].same_image) <= set(twins)


def test_records_of_one_image_are_named_as_such_and_not_as_neighbours():
    """Rows 0, 2, 3 share an image; 3 is of another source, and kept."""
    records = records_of([False, True, False, True], sources=[0, 0, 0, 1])
    found = find([[1, 0], [0, 1]], [0, 1, 0, 0], records, [0, 1], centering="none")
    assert set(found[0].same_image) == {2, 3}
    assert found[0].num_same_image == 2
    assert [n.row for n in found[0].nearest] == [1]
    assert found[1].nearest == (Neighbour(row=0, cosine=0.0, num_sharing=2),)
    assert found[1].nearest_kept == ()


def test_the_kept_one_of_another_source_is_named_before_many_dropped_ones():
    """Of a COCO image in six sources, the last of which keeps it."""
    records = records_of([False] * 5 + [True], sources=range(6))
    found = find([[1, 0]], [0] * 6, records, [0], centering="none")
    assert found[0].same_image[0] == 5
    assert found[0].num_same_image == 5


def test_rows_of_other_pools_are_left_out():
    """A store may have them; rows 4 and 1 are read, in the order of the records."""
    values_UD = np.arange(12).reshape(6, 2)
    features = RecordFeatures.of_records(Matrix(values_UD), np.array([4, -1, 1, 4]))
    assert features.values_UD.shape == (2, 2)
    assert features.values_UD[:].tolist() == [[2, 3], [8, 9]]
    assert features.row_N.tolist() == [1, -1, 0, 1]
    assert features.read(np.array([0, 2])).tolist() == [[8, 9], [2, 3]]


def test_a_kept_record_stands_for_its_image():
    records = records_of([False, False, True])
    found = find([[1, 0], [1, 1]], [0, 1, 1], records, [0], centering="none")
    assert [n.row for n in found[0].nearest] == [2]


def test_records_without_feature_or_score_have_no_neighbours_and_are_none():
    records = records_of([True] * 4, ranked=[True, True, False, True])
    found = find([[1, 0], [0, 1], [1, 1]], [0, 1, 2, -1], records, range(4), centering="none")
    assert found.keys() == {0, 1}
    assert [n.row for n in found[0].nearest] == [1]


def test_a_feature_that_is_the_centre_or_not_finite_has_no_direction():
    values_UD = [[1, 1], [3, 1], [-1, 1], [np.nan, 0]]
    found = find(values_UD, range(4), records_of([True] * 4), range(4), centering="corpus")
    assert found[0].nearest == found[3].nearest == ()
    assert [(n.row, n.cosine) for n in found[1].nearest] == [(0, 0.0), (2, -1.0)]
