"""Quotas by effective rank: ranks and shares by hand, and what they do to a cut."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.features.row_pairs import pair_rows
from prism_tune.selection.scorers.clusters.quotas import most_by_weight, place_by_weight
from prism_tune.selection.scorers.kernels.effective_rank import effective_ranks, weigh_groups
from prism_tune.selection.scorers.kernels.short_rows import ShortRows

AXES = np.concatenate([np.eye(4), -np.eye(4)])


def rows_of(*groups):
    values = np.concatenate(groups)
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    pairs = pair_rows(len(values), labels, np.arange(len(values)))
    return ShortRows(pairs, values, values.shape[1])


def test_effective_ranks_by_hand():
    """Four axes alike: 4; one line: 1; variances 3 to 1: exp(.5623); nothing that varies: 1."""
    line = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    uneven = np.array([[1.0, 0, 0, 0]] * 3 + [[0, 1.0, 0, 0]])
    found = effective_ranks(rows_of(AXES, line, uneven, np.zeros((2, 4))))
    np.testing.assert_allclose(found, [4, 1, np.exp(0.5623351), 1], rtol=1e-6)


def test_weights_by_hand():
    """sqrt(8 x 4) and sqrt(2 x 1); a = 0 is the sizes, a = 1 the ranks."""
    rows = rows_of(AXES, np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    np.testing.assert_allclose(weigh_groups(rows, 0.5), [32**0.5, 2**0.5])
    np.testing.assert_allclose(weigh_groups(rows, 0.0), [8, 2])
    np.testing.assert_allclose(weigh_groups(rows, 1.0), [4, 1])


def test_a_narrow_source_gets_two_per_cent():
    rows = rows_of(np.tile(AXES, (50, 1)), np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
    np.testing.assert_allclose(weigh_groups(rows, 0.0), [400, 0.02 * 402])


def test_many_sources_keep_their_weights():
    """Of sixty each is below 2 %: raised to it, all would be alike. Half of an equal share is."""
    line = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    weights = weigh_groups(rows_of(AXES, *[line] * 59), 1.0)
    np.testing.assert_allclose(weights, [4] + [1] * 59)
    narrow = weigh_groups(rows_of(*[AXES] * 59, line[:1]), 0.0)
    np.testing.assert_allclose(narrow, [8] * 59 + [0.5 / 60 * (59 * 8 + 1)])


@pytest.mark.parametrize(
    ("wanted", "taken"), [(4, [3, 1]), (8, [6, 2]), (12, [9, 3]), (16, [10, 6])]
)
def test_three_to_one_of_ten_each(wanted, taken):
    """What the first does not have goes to the second."""
    weights, sizes = np.array([3.0, 1.0]), np.array([10, 10])
    assert most_by_weight(wanted, weights, sizes).tolist() == taken
    orders = [np.arange(10), np.arange(10, 20)]
    values = place_by_weight(20, orders, weights)
    first = np.argsort(values, kind="stable")[:wanted]
    assert np.bincount(first // 10, minlength=2).tolist() == taken


def test_a_source_of_many_directions_keeps_more(make_table):
    """Two sources of 100: in one of them the features lie near a line."""
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(100, 8)), rng.normal(size=(100, 1)) @ rng.normal(size=(1, 8))
    rows = np.concatenate([wide, narrow + 0.05 * rng.normal(size=(100, 8))])
    table = make_table(rows, sources=["wide"] * 100 + ["narrow"] * 100)

    def count(budget, **options):
        kept = table.select("kernel_repulsion", budget=budget, **options)
        return len(kept), sum(int(uid[4:]) < 100 for uid in kept)

    shares = table.run("kernel_repulsion", quota_power=1.0).diagnostics["quota_shares"]
    assert shares["wide"] > 0.75
    assert count(40) == (40, 20)
    num, of_wide = count(40, quota_power=1.0)
    assert num == 40
    assert abs(of_wide - 40 * shares["wide"]) <= 1
    assert count(180, quota_power=1.0) == (180, 100)  # all of the one, the rest of the other
