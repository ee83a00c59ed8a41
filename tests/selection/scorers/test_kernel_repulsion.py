"""kernel_repulsion against its definition over an explicit kernel matrix; rounds by hand."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from prism_tune.errors import ConfigError
from prism_tune.selection.scorers.kernel_density import KernelFeatures, draw_frequencies
from prism_tune.selection.scorers.kernel_repulsion import pick_repelled, round_sizes


def draw(num_records=120, num_rows=50, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_rows, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    row_N = np.concatenate([np.arange(num_rows), rng.integers(0, num_rows, num_records - num_rows)])
    return rows, row_N, rng.normal(size=num_records)


def pick_by_definition(keys, rows, row_N, frequencies, num_picks, beta):
    """One round after the other over the N x N matrix of the approximate kernel."""
    phases = rows[row_N] @ frequencies
    kernel = np.cos(phases[:, None] - phases).mean(axis=2)
    kept, size = [], max(1, round(0.02 * len(keys)))
    while len(kept) < num_picks:
        cover = np.maximum(kernel[:, kept].sum(axis=1), 0)
        order = np.argsort(np.exp(keys) * (1 + cover) ** beta)
        kept += [n for n in order.tolist() if n not in kept][:size]
        size = max(1, round(0.25 * len(kept)))
    return kept[:num_picks]


@pytest.mark.parametrize("beta", [0.0, 1.5, 8.0])
def test_picks_are_those_of_the_definition(beta):
    rows, row_N, keys = draw()
    frequencies = draw_frequencies(np.eye(4), 64, 0.3, seed=0)
    picks = pick_repelled(keys, row_N, KernelFeatures(rows, frequencies), 60, beta)
    assert picks.tolist() == pick_by_definition(keys, rows, row_N, frequencies, 60, beta)


def test_without_repulsion_it_is_the_race():
    rows, row_N, keys = draw()
    features = KernelFeatures(rows, draw_frequencies(np.eye(4), 8, 0.3, seed=0))
    assert pick_repelled(keys, row_N, features, 40, 0.0).tolist() == np.argsort(keys)[:40].tolist()


def test_rounds_by_hand():
    assert list(islice(round_sizes(400, 400), 5)) == [8, 2, 2, 3, 4]
    assert sum(round_sizes(10, 10)) == 10
    assert list(round_sizes(1, 1)) == [1]


def test_of_near_duplicates_one_is_kept_before_another_is(make_table):
    """40 places with 5 near-duplicates each: at a fifth, most places have their one."""
    rng = np.random.default_rng(3)
    rows = np.repeat(rng.normal(size=(40, 16)), 5, axis=0) + 0.01 * rng.normal(size=(200, 16))

    def num_places(scorer):
        kept = make_table(rows).select(scorer, budget=0.2)
        return len({int(uid[4:]) // 5 for uid in kept})

    assert num_places("kernel_prism") <= 30  # as by chance: 40 (1 - .8^5) = 27
    assert num_places("kernel_repulsion") >= 34  # not 40: within a round nothing repels


def test_a_smaller_budget_is_the_beginning_of_a_larger(clustered):
    small, large = (clustered.select("kernel_repulsion", budget=b) for b in (0.1, 0.3))
    assert small < large


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, "`beta` = -1: expected a number from 0"),
        ({"alpha": float("inf")}, "`alpha` = 'inf': expected a number from 0"),
        ({"num_features": 7}, "`num_features` = 7: expected a positive even number"),
    ],
)
def test_options_are_refused_by_name(options, message, clustered):
    with pytest.raises(ConfigError, match=message):
        clustered.run("kernel_repulsion", **options)


def test_another_end_has_no_meaning(clustered):
    with pytest.raises(ConfigError, match="kernel_repulsion, which picks records one by one"):
        clustered.run("kernel_repulsion", keep="high")
