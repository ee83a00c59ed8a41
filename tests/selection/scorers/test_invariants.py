"""What every selector on features promises."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.errors import ConfigError, UserError

KERNELS = ["kernel_prism", "kernel_repulsion"]
ON_FEATURES = [*KERNELS, "leverage", "kcenter", "kmeanspp", "semdedup", "d2"]
SEEDED = [*KERNELS, "kcenter", "kmeanspp"]
PICKING = ["kernel_repulsion", "kcenter", "kmeanspp", "d2"]


@pytest.fixture(params=["global", "per_source"])
def table(request, clustered):
    if request.param == "global":
        clustered.sources = None
    return clustered


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_the_subset_owes_nothing_to_the_pools_order(scorer, table):
    assert table.shuffled(1).select(scorer) == table.select(scorer) == table.select(scorer)


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_a_smaller_budget_is_nested_in_a_larger_one(scorer, table):
    subsets = [table.select(scorer, budget=budget) for budget in (0.1, 0.3, 0.9)]
    assert [len(subset) for subset in subsets] == [12, 36, 108]
    assert subsets[0] < subsets[1] < subsets[2]


@pytest.mark.parametrize("scorer", SEEDED)
def test_the_seed_decides(scorer, table):
    assert table.select(scorer, seed=1) != table.select(scorer, seed=2)


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_equal_features_do_not_become_nan(scorer, make_table):
    scores = make_table(np.ones((6, 3))).score(scorer, budget=0.5)
    assert np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_a_feature_that_is_not_finite_is_counted_and_spoils_no_other(scorer, make_table):
    rows = np.random.default_rng(0).normal(size=(20, 4))
    rows[3, 1] = np.nan
    scored = make_table(rows, np.append(np.arange(20), 3)).run(scorer)
    assert scored.diagnostics["num_non_finite"] == 2
    assert np.flatnonzero(scored.unranked["feature_not_finite"]).tolist() == [3, 20]
    assert np.flatnonzero(~np.isfinite(scored.values_M)).tolist() == [3, 20]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_records_without_a_finite_feature_change_nothing_for_the_others(
    scorer, value, table, make_table
):
    rows = np.array([0, 7, 41, 85])
    healthy = np.flatnonzero(~np.isin(table.row_N, rows))
    without = make_table(
        np.delete(table.features_UD, rows, axis=0),
        table.row_N[healthy] - np.searchsorted(rows, table.row_N[healthy]),
        [table.uids[n] for n in healthy],
        table.sources and [table.sources[n] for n in healthy],
    )
    table.features_UD[rows] = value
    found, expected = table.run(scorer, budget=1.0), without.run(scorer, budget=1.0)
    np.testing.assert_array_equal(found.values_M[healthy], expected.values_M)
    assert np.isnan(np.delete(found.values_M, healthy)).all()
    assert len(healthy) <= 116


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_a_source_without_a_finite_feature_comes_last(scorer, make_table):
    """Four corners of a square: a row of zeros would be nearer to each than their neighbours."""
    nan = [np.nan, np.nan]
    rows = np.array([nan, [2.0, 0.0], [-2.0, 0.0], nan, [0.0, 2.0], [0.0, -2.0], nan])
    table = make_table(rows, sources=["b", "a", "a", "a", "a", "a", "b"])
    scored = table.run(scorer, budget=1.0)
    assert np.isnan(scored.values_M).tolist() == [True, False, False, True, False, False, True]
    assert scored.diagnostics["num_non_finite"] == 3
    table.sources = None
    for seed in range(10):
        kept = table.select(scorer, budget=4, seed=seed)
        assert kept == {"uid-1", "uid-2", "uid-4", "uid-5"}


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_a_record_alone_in_its_source(scorer, make_table):
    rows = np.random.default_rng(0).normal(size=(9, 4))
    table = make_table(rows, sources=["a"] * 8 + ["b"])
    assert len(table.select(scorer, budget=5)) == 5


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_an_unknown_option_names_the_nearest(scorer, clustered):
    with pytest.raises(ConfigError, match="did you mean `num_components`"):
        clustered.run(scorer, num_component=3)


@pytest.mark.parametrize("scorer", PICKING)
def test_an_order_of_picking_has_no_high_end(scorer, clustered):
    with pytest.raises(ConfigError, match=r"'high' has no meaning for [kd]"):
        clustered.run(scorer, keep="high")


@pytest.mark.parametrize("scorer", ON_FEATURES)
def test_no_finite_feature_is_an_error(scorer, make_table):
    with pytest.raises(UserError, match="none of the 4 image records has a finite score"):
        make_table(np.full((4, 2), np.inf)).run(scorer)
