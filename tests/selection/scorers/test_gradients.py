"""TIVE, and votes of held-out tasks, over made-up gradients: the definitions written out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.selection.budgets import Candidates, most_of_all, most_of_groups
from prism_tune.selection.evidence.gradients.sketches import NAME
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.gradients import tive
from prism_tune.selection.scorers.gradients.icons_heldout import budget_share, count_votes
from prism_tune.selection.scorers.gradients.units import UnitGradients
from prism_tune.selection.scorers.scorer import ScoringContext, change_selection
from prism_tune.selection.subset import cut_subset

SCORERS_HERE = ["tive", "icons_heldout", "less_heldout"]


class Gradients:
    """Records with gradients; sketches are the gradients themselves."""

    def __init__(self, gradients_MS, sources, norms=None, uids=None):
        self.gradients = np.asarray(gradients_MS, dtype=np.float32)
        self.sources = list(sources)
        self.norms = np.linalg.norm(self.gradients, axis=1) if norms is None else np.array(norms)
        self.uids = uids or [f"uid-{n}" for n in range(len(self.sources))]

    def shuffled(self, seed):
        order = np.random.default_rng(seed).permutation(len(self.uids))
        moved = ([of[n] for n in order] for of in (self.sources, self.norms, self.uids))
        sources, norms, uids = moved
        return Gradients(self.gradients[order], sources, norms, uids)

    def run(self, scorer, *, seed=0, budget=0.3, scope="per_source", **options):
        selection = {"scorer": scorer, "budget": budget, "scope": scope, "options": options}
        tree = {"name": "run", "model": {"path": "none"}, "data": {"records": "none.json"}}
        config = Config.model_validate({**tree, "selection": selection, "seed": seed})
        config = SCORERS[scorer].complete(config)
        rows = np.concatenate([self.norms[:, None], self.gradients], axis=1).astype(np.float32)
        by_source = config.selection.scope == "per_source"
        context = ScoringContext(
            config=config,
            pool=SimpleNamespace(uids=self.uids, sources=self.sources),
            records_M=np.arange(len(self.uids)),
            groups_M=np.array(self.sources) if by_source else None,
            more_rows={NAME: (rows, np.arange(len(rows)))},
        )
        return config, SCORERS[scorer].score(context)

    def select(self, scorer, *, budget=0.3, **settings):
        config, scored = self.run(scorer, budget=budget, **settings)
        by_source = config.selection.scope == "per_source"
        cut = cut_subset(
            scored.values_M,
            uids=self.uids,
            is_text_only_N=np.zeros(len(self.uids), dtype=bool),
            budget=budget,
            keep=config.selection.keep,
            groups_N=np.array(self.sources) if by_source else None,
        )
        return {self.uids[n] for n in np.flatnonzero(cut.selected_N)}


@pytest.fixture
def drawn():
    """120 records of three sources, whose gradients have directions and lengths of their own."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [60, 40, 20])
    directions = rng.normal(size=(3, 8))
    gradients = (directions[codes] + rng.normal(size=(120, 8))) * (1 + codes)[:, None]
    return Gradients(gradients, [f"source-{code}" for code in codes])


def counts(selected, table):
    kept = [table.sources[table.uids.index(uid)] for uid in selected]
    return {source: kept.count(source) for source in dict.fromkeys(table.sources)}


def test_typicality_is_the_mean_cosine_with_the_source():
    """(1,0), (0,1), (1,0): 2/3, 1/3, 2/3, itself included; softmax .3681, .2638, .3681."""
    rows = np.array([[1.0, 1, 0], [2.0, 0, 2], [3.0, 3, 0]], dtype=np.float32)
    units = UnitGradients(rows, np.arange(3), rows[:, 0].astype(float))
    mean = units.mean_of_groups(np.zeros(3, dtype=np.int64), 1)
    values = units.multiply(mean)[:, 0]
    np.testing.assert_allclose(values, [2 / 3, 1 / 3, 2 / 3])
    weights = np.exp(values) / np.exp(values).sum()
    np.testing.assert_allclose(weights, [0.3681, 0.2638, 0.3681], atol=5e-5)


def test_the_first_draw_follows_the_softmax():
    values, sharpness = np.array([2 / 3, 1 / 3, 2 / 3]), 1.0
    uids = ["a", "b", "c"]
    first = [np.argmax(sharpness * values + tive.draw_gumbel(uids, seed)) for seed in range(4000)]
    shares = np.bincount(first) / len(first)
    np.testing.assert_allclose(shares, [0.3681, 0.2638, 0.3681], atol=0.025)


def test_quotas_follow_the_mean_norms():
    """Means 4 and 2, three wanted: two and one."""
    table = Gradients(np.ones((8, 2)), "aaaabbbb", norms=[4, 3, 5, 4, 2, 1, 3, 2])
    assert counts(table.select("tive", budget=3), table) == {"a": 2, "b": 1}


def test_a_source_that_is_full_leaves_its_share_to_the_others():
    """Official code repeats its records; here 6 of 8 take both of the small source's and 4 more."""
    table = Gradients(np.ones((8, 2)), "aabbbbbb", norms=[9, 9, 1, 1, 1, 1, 1, 1])
    assert counts(table.select("tive", budget=6), table) == {"a": 2, "b": 4}


def test_tive_is_its_definition(drawn):
    """Quotas by Webster's method, and inside a source the highest of lambda v + noise."""
    kept = drawn.select("tive", budget=30, sharpness=20.0)
    unit = drawn.gradients / np.linalg.norm(drawn.gradients, axis=1, keepdims=True)
    noise = tive.draw_gumbel(drawn.uids, 0)
    sources = np.array(drawn.sources)
    names = list(dict.fromkeys(drawn.sources))
    quotas = dict.fromkeys(names, 0)
    means = {name: drawn.norms[sources == name].mean() for name in names}
    for _ in range(30):
        name = max(names, key=lambda one: means[one] / (quotas[one] + 0.5))
        quotas[name] += 1
    expected = set()
    for name in names:
        own = np.flatnonzero(sources == name)
        keys = 20.0 * (unit[own] @ unit[own].T).mean(axis=1) + noise[own]
        expected |= {drawn.uids[n] for n in own[np.argsort(-keys)][: quotas[name]]}
    assert kept == expected
    assert counts(kept, drawn) == quotas


def test_with_the_official_lambda_a_source_is_drawn_at_random(drawn):
    """Weights differ by less than a thousandth: another seed is another draw."""
    first, second = (drawn.select("tive", seed=seed) for seed in (1, 2))
    assert counts(first, drawn) == counts(second, drawn)
    assert len(first & second) < 0.7 * len(first)
    sharp = [drawn.select("tive", seed=seed, sharpness=1000.0) for seed in (1, 2)]
    assert len(sharp[0] & sharp[1]) > 0.9 * len(sharp[0])


@pytest.mark.parametrize("scope", ["per_source", "global"])
@pytest.mark.parametrize("budget", [0.3, 30])
def test_the_share_voted_for_is_what_the_cut_takes(budget, scope):
    """30 of 100 rows, 20 of which are text-only and kept beside: 10 of 80 image records."""
    chosen = {"scorer": "icons_heldout", "budget": budget, "budget_of": "rows", "scope": scope}
    tree = {"name": "run", "model": {"path": "none"}, "data": {"records": "none.json"}}
    config = Config.model_validate({**tree, "selection": chosen})
    is_text_N = np.arange(100) < 20
    sources_N = np.repeat(["a", "b"], [60, 40])  # 40 image records each
    by_source = scope == "per_source"
    candidates = Candidates([str(n) for n in range(100)], sources_N, is_text_N, is_text_N & False)
    sizes_G = np.array([40, 40] if by_source else [80])
    context = ScoringContext(
        config=config,
        pool=None,
        records_M=np.flatnonzero(~is_text_N),
        groups_M=sources_N[~is_text_N] if by_source else None,
        most_G=most_of_groups(config.selection, candidates, sizes_G),
        most=most_of_all(config.selection, candidates),
    )
    assert budget_share(context) == 0.125


def test_a_share_of_many_small_sources_is_not_the_sum_of_what_each_can_lose():
    """300 of 3,000 from 200 sources of 15: of some two are taken, and of none more."""
    chosen = {"scorer": "icons_heldout", "budget": 300, "budget_of": "rows", "budgets": [100]}
    tree = {"name": "run", "model": {"path": "none"}, "data": {"records": "none.json"}}
    config = Config.model_validate({**tree, "selection": chosen})
    no, sources_N = np.zeros(3000, dtype=bool), np.repeat(np.arange(200), 15).astype(str)
    candidates = Candidates([str(n) for n in range(3000)], sources_N, no, no)
    context = ScoringContext(
        config=config,
        pool=None,
        records_M=np.arange(3000),
        groups_M=sources_N,
        most_G=most_of_groups(config.selection, candidates, np.full(200, 15)),
        most=most_of_all(config.selection, candidates),
    )
    assert context.most_G.sum() > 300
    assert budget_share(context) == 0.1


def test_votes_are_counted_against_each_tasks_percentile():
    """Thresholds .58 and .68, votes 1, 1, 0, 1, 1: how many are below decides between the four."""
    influences = np.array([[0.9, 0.1, 0.5, 0.3, 0.7], [0.2, 0.8, 0.6, 0.9, 0.1]]).T
    found = count_votes(influences, 0.4)
    assert np.floor(found).tolist() == [1, 1, 0, 1, 1]
    # Below: (4, 0, 2, 1, 3) and (1, 3, 2, 4, 0) of five, halved.
    np.testing.assert_allclose(found, [1.5, 1.3, 0.4, 1.5, 1.3])


@pytest.mark.parametrize("scope", ["global", "per_source"])
@pytest.mark.parametrize("scorer", ["icons_heldout", "less_heldout"])
def test_influences_are_mean_cosines_with_records_held_out(drawn, scorer, scope):
    _, scored = drawn.run(scorer, budget=0.25, scope=scope, num_heldout=3)
    heldout = scored.unranked["held_out"]
    sources = np.array(drawn.sources)
    names = sorted(set(drawn.sources))
    assert scored.diagnostics["num_heldout"] == {"source-0": 3, "source-1": 3, "source-2": 2}
    assert np.isnan(scored.values_M[heldout]).all()
    unit = drawn.gradients / np.linalg.norm(drawn.gradients, axis=1, keepdims=True)
    tasks = [unit[heldout & (sources == name)] for name in names]
    influences = np.stack([(unit @ task.T).mean(axis=1) for task in tasks], axis=1)
    if scorer == "less_heldout":
        expected = influences.max(axis=1)
    else:
        expected = np.zeros(120)
        groups = [sources == name for name in names] if scope == "per_source" else [sources != ""]
        for group in groups:
            own = np.flatnonzero(group & ~heldout)
            votes = sum(column >= np.percentile(column, 75) for column in influences[own].T)
            below = [(column[:, None] > column).mean(axis=1) for column in influences[own].T]
            expected[own] = votes + np.mean(below, axis=0)
    left = ~heldout
    np.testing.assert_allclose(scored.values_M[left], expected[left], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scorer", SCORERS_HERE)
def test_the_subset_owes_nothing_to_the_pools_order(drawn, scorer):
    assert drawn.shuffled(1).select(scorer) == drawn.select(scorer) == drawn.select(scorer)


@pytest.mark.parametrize("scorer", ["tive", "less_heldout"])
def test_a_smaller_budget_is_nested_in_a_larger_one(drawn, scorer):
    subsets = [drawn.select(scorer, budget=budget) for budget in (0.1, 0.3, 0.9)]
    assert [len(subset) for subset in subsets] == [12, 36, 108]
    assert subsets[0] < subsets[1] < subsets[2]


@pytest.mark.parametrize("scorer", SCORERS_HERE)
def test_a_gradient_that_is_not_finite_comes_last_and_spoils_no_other(drawn, scorer):
    drawn.gradients[5, 2] = drawn.norms[5] = np.nan
    scored = drawn.run(scorer)[1]
    assert scored.unranked["no_score"].tolist() == [n == 5 for n in range(120)]
    heldout = scored.unranked.get("held_out", np.zeros(120, dtype=bool))
    assert (np.isfinite(scored.values_M) == ~heldout & (np.arange(120) != 5)).all()
    assert "uid-5" not in drawn.select(scorer, budget=0.8)


def test_what_cannot_be_scored_says_so(drawn):
    with pytest.raises(UserError, match="none of the 4 image records has a finite score"):
        Gradients(np.full((4, 2), np.nan), "aabb").run("tive")
    with pytest.raises(UserError, match="no source has 10 records that could be read"):
        Gradients(np.ones((8, 2)), "aaaabbbb").run("less_heldout")
    config = drawn.run("tive")[0]
    with pytest.raises(ConfigError, match="'high' has no meaning for tive"):
        SCORERS["tive"].complete(change_selection(config, keep="high"))


def test_the_uids_are_listed_once_however_large_the_pool(drawn):
    """A list of all uids for each of the records: hours for LLaVA-665K."""

    class Counted(list):
        num_reads = 0

        def __getitem__(self, at):
            Counted.num_reads += 1
            return super().__getitem__(at)

    drawn.uids = Counted(drawn.uids)
    drawn.run("tive")
    assert Counted.num_reads == 120
