"""coincide against the definition written out, and by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.clusters.coincide import (
    mean_below,
    mean_kernels,
    pick_representatives,
    share_out,
    transferability,
)
from prism_tune.selection.scorers.clusters.kmeans import cluster, shorten
from prism_tune.selection.scorers.readable import score_readable
from prism_tune.selection.scorers.scorer import ScoringContext
from prism_tune.selection.subset import hash_uids


class Records:
    """Rows of ten unit blocks in five bunches; `select` gives the kept uids."""

    def __init__(self, count=120, width=20, seed=0):
        rng = np.random.default_rng(seed)
        bunches = rng.normal(size=(5, width))
        rows = bunches[rng.integers(0, 5, count)] + 0.4 * rng.normal(size=(count, width))
        self.rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        self.uids = [f"uid-{n}" for n in range(count)]
        self.row_N = np.arange(count)
        self.sources = None

    def shuffled(self, seed):
        other = Records(len(self.uids))
        order, rows = (np.random.default_rng(s).permutation(len(self.uids)) for s in (seed, 9))
        other.rows, other.uids = self.rows[rows], [self.uids[n] for n in order]
        other.row_N = np.argsort(rows)[self.row_N[order]]
        other.sources = None if self.sources is None else [self.sources[n] for n in order]
        return other

    def picked(self, budget=0.3, seed=0, **options):
        """uids in the order of keeping."""
        config = Config.model_validate(
            {
                "name": "run",
                "seed": seed,
                "model": {"path": "none"},
                "data": {"records": "none.json"},
                "selection": {"scorer": "coincide", "budget": budget, "options": options},
            }
        )
        context = ScoringContext(
            config=SCORERS["coincide"].complete(config),
            pool=SimpleNamespace(uids=self.uids),
            records_M=np.arange(len(self.uids)),
            groups_M=None if self.sources is None else np.array(self.sources),
            more_rows={"attention_outputs": (self.rows, self.row_N)},
        )
        values = score_readable(SCORERS["coincide"], context).values_M
        kept = np.flatnonzero(values < np.nanmax(values))
        return [self.uids[n] for n in kept[np.argsort(values[kept], kind="stable")]]


def kernel(x, y):
    return float(np.exp(-((x - y) ** 2).sum() / 2))


def kept_by_definition(records, wanted, num_clusters, tau, cutoff):
    """All pairs, plain loops; the clusters are those of k-means over the uids' hash order."""
    at = np.argsort(hash_uids(records.uids))
    rows = records.rows[records.row_N[at]].astype(np.float64)
    labels, _ = cluster(rows, num_clusters, 0, 50)
    members = [np.flatnonzero(labels == label) for label in sorted(set(labels.tolist()))]
    texts = [rows[m].mean(axis=0)[rows.shape[1] // 2 :] for m in members]
    scores = []
    for c, own in enumerate(members):
        cosines = [
            float(texts[c] @ t / np.linalg.norm(texts[c]) / np.linalg.norm(t)) for t in texts
        ]
        near = [value for value in cosines if value <= cutoff]
        density = np.mean([kernel(rows[i], rows[j]) for i in own for j in own])
        scores.append(np.mean(near) / density)
    kept, left = [], wanted
    todo = sorted(range(len(members)), key=lambda c: -scores[c])
    while todo:
        weights = np.exp(np.array([scores[c] for c in todo]) / tau)
        first, *todo = todo
        number = min(round(left * weights[0] / weights.sum()), len(members[first]))
        left -= number
        chosen = []
        for _ in range(number):

            def distance(i, own=members[first], chosen=chosen):
                trial = [*chosen, i]
                within = np.mean([kernel(rows[a], rows[b]) for a in trial for b in trial])
                across = np.mean([kernel(rows[a], rows[b]) for a in own for b in trial])
                return within - 2 * across

            chosen.append(min(set(members[first]) - set(chosen), key=distance))
        kept += chosen
    assert left == 0
    return {records.uids[at[n]] for n in kept}


@pytest.mark.parametrize(("tau", "cutoff"), [(0.1, 0.9), (1.0, 0.2)])
def test_the_subset_is_that_of_the_definition(tau, cutoff):
    records = Records(60)
    expected = kept_by_definition(records, 18, 6, tau, cutoff)
    kept = records.picked(num_clusters=6, tau=tau, transfer_cutoff=cutoff)
    assert set(kept) == expected
    assert len(expected) == 18


@pytest.mark.parametrize(
    ("scores", "sizes", "wanted", "quotas"),
    [
        ((0.5 / 0.8, 0.4 / 0.5, 0.3 / 0.9), (10, 3, 20), 12, (9, 3, 0)),
        ((1.0, 1.0), (5, 5), 4, (2, 2)),
        ((2.0, 1.0), (3, 9), 8, (3, 5)),  # what is capped passes on
        ((1.0, 3.0), (4, 4), 8, (4, 4)),
        ((5.0,), (7,), 9, (7,)),  # no more than there are
    ],
)
def test_quotas_by_hand(scores, sizes, wanted, quotas):
    assert share_out(wanted, np.array(scores), np.array(sizes), 0.1).tolist() == list(quotas)


def test_budget_that_rounding_leaves_over_goes_to_clusters_with_room():
    quotas = share_out(10, np.array([0.9, 0.8, 0.1]), np.array([6, 9, 1]), 0.1)
    assert quotas.sum() == 10
    assert (quotas <= [6, 9, 1]).all()


def test_transferability_by_hand():
    """c12 = .95 is too near; with itself (1) a centroid is never compared."""
    cosines = np.array([[1, 0.95, 0.2], [0.95, 1, 0.1], [0.2, 0.1, 1]])
    np.testing.assert_allclose(mean_below(cosines, 0.9), [0.2, 0.1, 0.15])
    assert mean_below(np.array([[1.0, 0.95], [0.95, 1.0]]), 0.9).tolist() == [0, 0]


def test_transferability_is_of_directions():
    texts = np.array([[3.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    half = 0.5**0.5
    np.testing.assert_allclose(transferability(texts, 0.9), [half / 2, half / 2, half])


def test_representatives_by_hand():
    """Of 0, 1, 2 and 5: the middle of the bunch, then the one far off, then the bunch again."""
    rows = np.array([[0.0], [1.0], [2.0], [5.0]])
    picks = pick_representatives(rows, mean_kernels(rows), 4)
    assert picks.tolist() == [1, 3, 0, 2]


def test_the_subset_owes_nothing_to_the_pools_order():
    records = Records()
    for sources in (None, ["a" if n % 3 else "b" for n in range(120)]):
        records.sources = sources
        assert set(records.shuffled(1).picked()) == set(records.picked())


def test_budgets_and_seeds():
    records = Records()
    assert [len(records.picked(budget)) for budget in (0.1, 0.3, 0.9)] == [12, 36, 108]
    assert records.picked(num_clusters=20) != records.picked(num_clusters=20, seed=1)


def test_rows_that_cannot_be_read_change_nothing_for_the_others():
    """As zeros they were a cluster of their own, with a quota, and the first of it."""
    records, others = Records(), Records()
    records.rows[:30] = np.nan
    others.rows, others.uids = others.rows[30:], others.uids[30:]
    others.row_N = np.arange(90)
    assert records.picked(36) == others.picked(36)
    assert len(records.picked(110)) == 89  # of 90; the last shares its place with what is left


def test_short_rows_keep_inner_products():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(50, 8)) @ rng.normal(size=(8, 400))).astype(np.float32)
    rows[3] = np.nan
    short = shorten(rows, np.arange(50))
    assert short.shape == (50, 256)
    assert not short[3].any()
    rows[3] = 0
    np.testing.assert_allclose(short @ short.T, rows @ rows.T.astype(np.float64), atol=1e-2)
    assert shorten(rows[:, :30], np.arange(50)).shape == (50, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "`tau` = 0"),
        ({"transfer_cutoff": 2}, "`transfer_cutoff` = 2"),
        ({"num_cluster": 3}, "did you mean `num_clusters`"),
        ({"layers": "all"}, "expected a list of layer numbers from 0, or null"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Records().picked(**options)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"budget_of": "tokens"}, "budget_of=tokens: coincide gives its clusters quotas of a num"),
        (
            {"source_budgets": {"a": 0.1}, "scope": "global"},
            "source_budgets: coincide with selection.scope=global gives clusters of several",
        ),
    ],
)
def test_a_budget_that_gives_clusters_no_quota_is_refused(make_table, asked, message):
    with pytest.raises(ConfigError, match=message):
        make_table(np.eye(3)).complete("coincide", **asked)
    assert make_table(np.eye(3)).complete("coincide", source_budgets={"a": 0.1})


def test_it_picks_one_by_one(workplace):
    with pytest.raises(ConfigError, match="'high' has no meaning for coincide"):
        workplace.select(selection__scorer="coincide", selection__keep="high")
