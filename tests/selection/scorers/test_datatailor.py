"""datatailor against the definition written out, and by hand."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from prism_tune.config.sections import Config, SelectionConfig
from prism_tune.selection.budgets import Candidates, cut_pool
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.clusters import datatailor
from prism_tune.selection.scorers.readable import score_readable
from prism_tune.selection.scorers.scorer import ScoringContext
from prism_tune.selection.subset import apportion


class Records:
    """Records of two sources: entropy, largest share and a point each."""

    def __init__(self, count=50, seed=0):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(6, 5))[rng.integers(0, 6, count)] * 4
        points += 0.3 * rng.normal(size=points.shape)
        shares = rng.uniform(0.3, 0.9, count)
        self.rows = np.column_stack([rng.uniform(1, 4, count), shares, points]).astype(np.float32)
        self.uids = [f"uid-{n}" for n in range(count)]
        self.sources = ["a" if n % 3 else "b" for n in range(count)]
        self.turns = [2 * int(n) for n in rng.integers(1, 5, count)]

    def part(self, order):
        other = Records(len(order))
        other.rows = self.rows[order]
        for name in ("uids", "sources", "turns"):
            setattr(other, name, [getattr(self, name)[n] for n in order])
        return other

    def run(self, budget=0.3, scope="global", **selection):
        config = Config.model_validate(
            {
                "name": "run",
                "model": {"path": "none"},
                "data": {"records": "none.json"},
                "selection": {
                    "scorer": "datatailor",
                    "budget": budget,
                    "scope": scope,
                    **selection,
                },
            }
        )
        pool = {
            n: SimpleNamespace(source=source, turns=[None] * turns)
            for n, (source, turns) in enumerate(zip(self.sources, self.turns, strict=True))
        }
        context = ScoringContext(
            config=SCORERS["datatailor"].complete(config),
            pool=type("Pool", (dict,), {"uids": self.uids, "sources": self.sources})(pool),
            records_M=np.arange(len(self.uids)),
            groups_M=np.array(self.sources) if scope == "per_source" else None,
            more_rows={"state_spectra": (self.rows, np.arange(len(self.uids)))},
        )
        return score_readable(SCORERS["datatailor"], context)

    def kept(self, **settings):
        """uids in the order of keeping, with the global quota."""
        values = self.run(**settings).values_M
        chosen = np.flatnonzero(values < values.max())
        return [self.uids[n] for n in chosen[np.argsort(values[chosen], kind="stable")]]


def value_by_definition(information, points, asked):
    """V of the records of one source: plain loops over all pairs."""
    tree = linkage(points, "ward")
    labels = fcluster(tree, 0.1 * tree[-1, 2], criterion="distance")
    unique, typical = [], []
    means = {label: points[labels == label].mean(axis=0) for label in set(labels.tolist())}
    for i, label in enumerate(labels):
        own = np.flatnonzero(labels == label)
        distances = np.linalg.norm(points[own][:, None] - points[own], axis=2)
        if distances.any():
            row = np.linalg.norm(points[own] - points[i], axis=1)
            unique.append((row * information[own]).sum() / (distances.sum() / len(own)))
        else:
            unique.append(information[own].mean())
        near = [
            np.exp(means[label] @ mean / np.linalg.norm(means[label]) / np.linalg.norm(mean))
            for other, mean in means.items()
            if other != label
        ]
        typical.append(information[i] * np.mean(near))
    ranks = [
        np.array([np.sum(np.array(values) < value) for value in values]) / len(information)
        for values in (information, unique, typical)
    ]
    return (asked * ranks[0] + ranks[1] + ranks[2]) / (asked + 2)


@pytest.mark.parametrize("source", ["a", "b"])
def test_the_order_in_a_source_is_that_of_the_definition(source):
    records = Records()
    at = np.flatnonzero(np.array(records.sources) == source)
    rows, asked = records.rows[at].astype(np.float64), np.array(records.turns)[at] // 2
    expected = value_by_definition(rows[:, 0], rows[:, 2:], asked)
    places = records.run(scope="per_source").values_M[at]
    np.testing.assert_allclose(
        expected[np.argsort(places)], np.sort(expected)[::-1], rtol=1e-9, atol=1e-12
    )
    assert sorted(places.tolist()) == list(range(len(at)))


def test_sources_get_their_quota():
    """In proportion to records x squared mean share; in each the best."""
    records = Records()
    kept = records.kept(budget=20)
    sources = np.array(records.sources)
    weights = {s: (sources == s).sum() * records.rows[sources == s, 1].mean() ** 2 for s in "ab"}
    wanted = round(20 * weights["a"] / (weights["a"] + weights["b"]))
    of_a = {uid for uid in kept if records.sources[records.uids.index(uid)] == "a"}
    assert (len(kept), len(of_a)) == (20, wanted)
    places = records.run(scope="per_source").values_M
    best = sorted((n for n in range(50) if sources[n] == "a"), key=lambda n: places[n])
    assert of_a == {records.uids[n] for n in best[:wanted]}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"budget": 40, "source_budgets": {}}, {"a": 36, "b": 4}),
        ({"budget": 4000, "budget_of": "tokens"}, {"a": 36, "b": 4}),
        ({"budget": 40, "source_budgets": {"c": 10}}, {"a": 36, "b": 4, "c": 10}),
        ({"budget": 13000, "budget_of": "tokens"}, {"a": 100, "b": 30}),  # a has no more
    ],
)
def test_quotas_hold_whatever_the_budget_counts(asked, expected):
    """Mean shares .9 and .3 are quotas of 9 to 1; c has none of its own. 100 tokens a record."""
    sources = [name for name in expected for _ in range(100)]
    records = Records(len(sources))
    records.sources = sources
    records.rows[:, 1] = [{"a": 0.9, "b": 0.3, "c": 1e-9}[name] for name in sources]
    scored = records.run(**asked)
    cut = cut_pool(
        SelectionConfig(scope="global", keep="low", **asked),
        Candidates(
            records.uids,
            np.array(sources),
            np.zeros(len(sources), dtype=bool),
            np.zeros(len(sources), dtype=bool),
            np.full(len(sources), 100),
        ),
        scored.values_M,
        asked["budget"],
    )
    assert Counter(np.array(sources)[cut.selected_N].tolist()) == expected
    if asked.get("source_budgets") == {}:
        assert scored.diagnostics["quotas"] == expected
    else:
        shares = scored.diagnostics["quota_shares"]
        assert (shares["a"], shares["b"]) == pytest.approx((0.9, 0.1))


def test_a_source_without_numbers_comes_last_where_no_number_is_known():
    records = Records(6)
    records.sources = ["a"] * 3 + ["b"] * 3
    records.rows[3:] = np.nan
    values = records.run(budget=0.5, budget_of="tokens").values_M
    assert np.isfinite(values).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("wanted", "weights", "sizes", "quotas"),
    [
        (4, (10 * 0.75**2, 10 * 0.5**2), (10, 10), (3, 1)),  # 2.77 and 1.23
        (3, (4, 2), (9, 9), (2, 1)),
        (10, (9, 1, 1), (4, 20, 20), (4, 3, 3)),  # what the first does not have
        (7, (1, 1), (3, 3), (3, 3)),  # no more than there are
        (5, (0, 0), (4, 6), (2, 3)),
        (3, (1, 1, 1), (0, 5, 5), (0, 2, 1)),
    ],
)
def test_quotas_by_hand(wanted, weights, sizes, quotas):
    found = apportion(wanted, np.array(weights, dtype=float), np.array(sizes))
    assert found.tolist() == list(quotas)


def test_uniqueness_by_hand():
    """Distances 1, 3 and 2 on a line: their sum over all pairs is 12, a third of it 4."""
    points, information = np.array([[0.0], [1.0], [3.0]]), np.array([1.0, 2.0, 3.0])
    found = datatailor.measure_uniqueness(points, information)
    assert found.tolist() == pytest.approx([11 / 4, 7 / 4, 7 / 4])
    same = datatailor.measure_uniqueness(np.full((3, 2), 1e3), information)
    assert same.tolist() == [2.0, 2.0, 2.0]


def test_one_cluster_is_as_representative_as_it_is_informative():
    assert datatailor.compare_clusters(np.ones((1, 3))).tolist() == [1.0]
    found = datatailor.compare_clusters(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    assert found.tolist() == pytest.approx([(np.e + 1) / 2, (np.e + 1) / 2, 1.0])


def test_many_points_are_clustered_by_their_centroids(monkeypatch):
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(4, 3)) * 50, 30, axis=0) + rng.normal(size=(120, 3)) * 0.1
    whole = datatailor.cluster_points(points, 0)
    monkeypatch.setattr(datatailor, "MOST_POINTS", 16)
    short = datatailor.cluster_points(points, 0)
    assert sorted(part.tolist() for part in short) == sorted(part.tolist() for part in whole)
    assert len(whole) == 4


def test_order_nesting_and_records_without_numbers():
    records = Records()
    shuffled = records.part(np.random.default_rng(1).permutation(50).tolist())
    assert set(shuffled.kept()) == set(records.kept())
    small = records.kept(budget=5)
    assert len(small) == 5
    records.rows[3, :] = np.nan
    scored = records.run()
    assert scored.unranked["no_score"].sum() == 1
    assert records.uids[3] not in records.kept(budget=40)
    alone = records.part([0, 1, 2])  # of one source each, or two
    assert len(alone.kept(budget=2)) == 2
