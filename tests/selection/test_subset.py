"""Budgets: counts, nesting, ties, text-only records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_tune.errors import UserError
from prism_tune.selection.rooms import num_kept
from prism_tune.selection.subset import cut_subset, hash_uids


def cut(scores, budget, *, keep="low", groups=None, text_only=None, uids=None):
    num_records = len(scores)
    return cut_subset(
        np.array(scores, dtype=np.float64),
        uids=uids or [f"u{i}" for i in range(num_records)],
        is_text_only_N=np.array(text_only or [False] * num_records),
        budget=budget,
        keep=keep,
        groups_N=None if groups is None else np.array(groups),
    )


def kept(*args, **options):
    return np.flatnonzero(cut(*args, **options).selected_N).tolist()


def test_lowest_scores_are_kept():
    assert kept([0.5, 0.1, 0.4, 0.2, 0.3], 2) == [1, 3]


def test_highest_scores_are_kept():
    assert kept([0.5, 0.1, 0.4, 0.2, 0.3], 2, keep="high") == [0, 2]


def test_middle_keeps_the_centre_of_the_ranking():
    assert kept([0.5, 0.1, 0.4, 0.2, 0.3], 3, keep="middle") == [2, 3, 4]


def test_scores_decide_globally_but_not_across_sources():
    scores, groups = [1, 2, 3, 4, 5, 6], ["a"] * 4 + ["b"] * 2
    assert kept(scores, 0.5) == [0, 1, 2]
    assert kept(scores, 0.5, groups=groups) == [0, 1, 4]


def test_every_source_keeps_exactly_a_third_where_it_divides():
    groups = ["a"] * 9 + ["b"] * 6 + ["c"] * 3
    chosen = cut(np.arange(18.0), 1 / 3, groups=groups).selected_N
    assert [int(chosen[np.array(groups) == g].sum()) for g in "abc"] == [3, 2, 1]


def test_small_source_is_not_favoured():
    """One record of eleven is less than half a seat at a budget of 2."""
    assert kept([*range(10), -1], 2, groups=["a"] * 10 + ["b"]) == [0, 1]


def test_text_only_records_are_kept_and_do_not_use_the_budget():
    result = cut([9, 0, 1, 9], 1, text_only=[True, False, False, True])
    assert result.selected_N.tolist() == [True, True, False, True]
    assert result.reasons == ["text_only", "selected", "below_cut", "text_only"]
    assert result.rank_N.tolist() == [0, 1, 2, 0]


def test_a_pool_without_images_is_kept_whole():
    assert kept([np.nan, np.nan], 0.3, text_only=[True, True]) == [0, 1]


def test_ties_follow_the_uid_not_the_position():
    uids = [f"record-{i}" for i in range(10)]
    first = {uids[i] for i in kept([0.0] * 10, 4, uids=uids)}
    turned = uids[::-1]
    assert {turned[i] for i in kept([0.0] * 10, 4, uids=turned)} == first


def test_fraction_is_of_image_records_rounded_half_up():
    assert num_kept(0.3, 10) == 3
    assert num_kept(0.25, 10) == 3
    assert num_kept(4, 10) == 4
    assert num_kept(1.0, 10) == 10
    assert num_kept(1, 10) == 1


@pytest.mark.parametrize(("budget", "message"), [(11, "has 10 image"), (0.01, "keeps none")])
def test_impossible_budgets_are_refused(budget, message):
    with pytest.raises(UserError, match=message):
        num_kept(budget, 10)


@pytest.mark.parametrize(
    ("keep", "expected"), [("low", [1, 3]), ("high", [3, 4]), ("middle", [1, 3])]
)
def test_what_has_no_score_comes_last(keep, expected):
    scores = [np.nan, 1.0, np.nan, 2.0, 9.0]
    assert kept(scores, 2, keep=keep) == expected
    assert kept(scores, 3, keep=keep) == [1, 3, 4]


def test_hash_depends_on_the_seed_only_when_given():
    assert hash_uids(["a"], seed=1) != hash_uids(["a"], seed=2)
    assert hash_uids(["a"]) == hash_uids(["a"])


@settings(deadline=None, max_examples=60)
@given(
    data=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("abcd"), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    budgets=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    keep=st.sampled_from(["low", "middle", "high"]),
    by_source=st.booleans(),
)
def test_smaller_budgets_are_nested_and_totals_exact(data, budgets, keep, by_source):
    scores = [float(score) for score, _, _ in data]
    text_only = [text for _, _, text in data]
    groups = [source for _, source, _ in data] if by_source else None
    num_images = text_only.count(False)
    sets = []
    for budget in sorted(budgets):
        wanted = int(np.floor(budget * num_images + 0.5))
        if wanted == 0:
            continue
        chosen = set(kept(scores, budget, keep=keep, groups=groups, text_only=text_only))
        assert len(chosen) == wanted + text_only.count(True)
        sets.append(chosen)
    if len(sets) == 2:
        assert sets[0] <= sets[1]
    if by_source and sets:
        for source in set(groups):
            own = [i for i, g in enumerate(groups) if g == source and not text_only[i]]
            share = max(budgets) * len(own)
            assert abs(len(sets[-1] & set(own)) - share) <= 2
