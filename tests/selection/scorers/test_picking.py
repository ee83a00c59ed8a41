"""kcenter and kmeanspp against the definitions, on every step."""

from __future__ import annotations

import numpy as np
import pytest

from prism_tune.selection.scorers.kcenter import choose_farthest
from prism_tune.selection.scorers.kmeanspp import draw_far
from prism_tune.selection.scorers.pick_order import pick
from prism_tune.selection.subset import cut_subset, most_taken


def unit_rows(num_rows, width):
    rows = np.random.default_rng(0).normal(size=(num_rows, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def distances_to(rows, picks):
    return ((rows[:, None] - rows[picks]) ** 2).sum(axis=2).min(axis=1)


def test_kcenter_takes_the_farthest_at_every_step():
    rows, ones = unit_rows(5000, 3), np.ones(5000, dtype=int)
    picks = pick(rows, ones, 40, choose_farthest, np.random.default_rng(0))
    for step in range(1, 40):
        farthest = distances_to(rows, picks[:step])
        assert farthest[picks[step]] == pytest.approx(farthest.max())


def test_kcenter_by_hand(make_table):
    """On the circle: two clusters at 0 and 180 degrees, one record at 90."""
    angles = np.radians([0, 1, 2, 180, 181, 182, 90])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for seed in range(5):
        kept = make_table(rows).select("kcenter", budget=3, seed=seed)
        sides = {"left" if n > 2 else "right" for n in map(int, (u[4:] for u in kept)) if n != 6}
        assert "uid-6" in kept
        assert sides == {"left", "right"}


def test_kmeanspp_draws_by_squared_distance():
    nearest, counts = np.array([0.0, 1.0, 3.0, 2.0]), np.array([1, 1, 1, 2])
    rng = np.random.default_rng(0)
    drawn = np.bincount([draw_far(nearest, counts, rng) for _ in range(8000)], minlength=4)
    np.testing.assert_allclose(drawn / 8000, np.array([0, 1, 3, 4]) / 8, atol=0.02)


@pytest.mark.parametrize("rule", [choose_farthest, draw_far])
def test_no_row_is_picked_twice_and_equal_rows_end_it(rule):
    rows = np.repeat(unit_rows(6, 3), 5, axis=0)
    picks = pick(rows, np.ones(30, dtype=int), 30, rule, np.random.default_rng(0))
    assert sorted(picks // 5) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("scorer", ["kcenter", "kmeanspp"])
def test_records_of_one_image_follow_after_all_that_differ(scorer, make_table):
    table = make_table(unit_rows(10, 3), np.arange(30) % 10)
    kept = table.select(scorer, budget=10)
    assert sorted(int(uid[4:]) % 10 for uid in kept) == list(range(10))


@pytest.mark.parametrize("scorer", ["kcenter", "kmeanspp"])
def test_only_what_the_budget_can_take_is_picked(scorer, clustered):
    scored = clustered.run(scorer, budget=12)
    assert 12 <= scored.diagnostics["num_picked"] <= 13
    assert scored.values_M.max() == scored.diagnostics["num_picked"]


def test_the_most_a_cut_takes_bounds_every_group():
    rng = np.random.default_rng(0)
    for trial in range(60):
        groups = np.repeat(np.arange(4), rng.integers(1, 30, 4))
        budget = int(rng.integers(1, len(groups) + 1))
        cut = cut_subset(
            rng.normal(size=len(groups)),
            uids=[f"{trial}-{n}" for n in range(len(groups))],
            is_text_only_N=np.zeros(len(groups), dtype=bool),
            budget=budget,
            keep="low",
            groups_N=groups,
        )
        most = most_taken(np.bincount(groups), budget)
        taken = np.bincount(groups[cut.selected_N], minlength=4)
        assert (taken <= most).all()
        assert most.sum() <= budget + 4
