"""self_filter_static: the map, and the picks, against their definitions; then the whole stage."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from support.tiny_encoders import save_encoder

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.selection.evidence.embeddings.joint import NAME
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.losses.self_filter_static import (
    SelfFilterOptions,
    fit_map,
    pick_hardest,
    project,
)
from prism_tune.selection.scorers.scorer import ScoringContext


def options(**changes):
    return SelfFilterOptions(model="clip", **changes)


def test_a_neighbour_loses_the_square_of_its_cosine():
    """d = 3, 2, 1 and cos 0.8: the first, then 2 - 3 x .64 = .08 is less than the third's 1."""
    rows = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=np.float32)
    picks = pick_hardest(rows, np.array([3.0, 2.0, 1.0]), 3, options(num_neighbors=1))
    assert picks.tolist() == [0, 2, 1]


def test_a_negative_difficulty_takes_nothing_from_others_and_adds_nothing():
    rows = np.array([[1, 0], [1, 0.1], [0, 1]], dtype=np.float32)
    picks = pick_hardest(rows, np.array([-1.0, -3.0, -2.0]), 3, options(num_neighbors=1))
    assert picks.tolist() == [0, 2, 1]


def by_definition(rows, difficulty, num_picks, k):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, left, picks = unit @ unit.T, difficulty.astype(float).copy(), []
    remaining = set(range(len(rows)))
    while len(picks) < num_picks:
        hardest = max(sorted(remaining), key=lambda n: left[n])
        picks.append(hardest)
        remaining.remove(hardest)
        nearest = sorted(remaining, key=lambda n: -cosines[hardest, n])[:k]
        for n in nearest:
            left[n] -= max(left[hardest], 0) * cosines[hardest, n] ** 2
    return picks


@pytest.mark.parametrize("k", [1, 3, 10])
def test_picks_are_those_of_the_definition(k):
    rng = np.random.default_rng(k)
    rows = rng.normal(size=(36, 6)).astype(np.float32) + 1
    difficulty = rng.normal(size=36) + 1
    # Few enough for every remaining record to be looked at.
    asked = options(num_neighbors=k, num_components=None)
    expected = by_definition(rows, difficulty, 9, asked.num_neighbors)
    assert pick_hardest(rows, difficulty, 9, asked).tolist() == expected


def test_smaller_budgets_are_nested_and_few_components_find_nearly_the_same():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 24)) + rng.normal(size=24)
    rows = rows.astype(np.float32)
    difficulty = rng.normal(size=300)
    full = pick_hardest(rows, difficulty, 90, options(num_components=None)).tolist()
    few = pick_hardest(rows, difficulty, 90, options(num_components=5)).tolist()
    assert pick_hardest(rows, difficulty, 30, options(num_components=None)).tolist() == full[:30]
    assert len(set(full) & set(few)) >= 85
    assert project(rows, 5).shape == (300, 5)


def test_the_map_gives_hard_records_a_low_output():
    """At the end no direction lowers the loss, and the outputs follow the losses."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(640, 5)).astype(np.float32)
    nll = rows @ np.array([1.0, -2.0, 0.5, 0, 0]) + 0.3 * rng.normal(size=640)
    weights = fit_map(rows, nll)

    def loss(w):
        outputs = (rows @ w).reshape(-1, 16)
        shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        scaled = ((nll - nll.mean()) / nll.std()).reshape(-1, 16)
        return (shares * scaled).sum(axis=1).mean() + 0.01 * (w**2).sum()

    assert loss(weights) < loss(np.zeros(5)) - 0.5
    steps = 1e-3 * np.eye(5)
    slopes = [(loss(weights + step) - loss(weights - step)) / 2e-3 for step in steps]
    assert np.abs(slopes).max() < 1e-3
    assert np.corrcoef(-(rows @ weights), nll)[0, 1] > 0.9


class Table:
    def __init__(self, rows, nll, sources, uids=None):
        self.rows, self.nll, self.sources = rows, nll, sources
        self.uids = uids or [f"uid-{n}" for n in range(len(nll))]

    def shuffled(self, seed):
        order = np.random.default_rng(seed).permutation(len(self.uids))
        moved = [[of[n] for n in order] for of in (self.sources, self.uids)]
        return Table(self.rows[order], self.nll[order], *moved)

    def select(self, budget, scope="per_source", seed=0):
        chosen = {"scorer": "self_filter_static", "budget": budget, "scope": scope}
        tree = {"name": "run", "model": {"path": "none"}, "data": {"records": "none.json"}}
        given = {**tree, "seed": seed, "selection": {**chosen, "options": {"model": "clip"}}}
        context = ScoringContext(
            config=Config.model_validate(given),
            pool=SimpleNamespace(uids=self.uids, sources=self.sources),
            records_M=np.arange(len(self.nll)),
            groups_M=np.array(self.sources) if scope == "per_source" else None,
            measured={"nll": self.nll},
            more_rows={NAME: (self.rows, np.arange(len(self.nll)))},
        )
        scored = SCORERS["self_filter_static"].score(context)
        last = scored.values_M.max()
        return {uid for uid, v in zip(self.uids, scored.values_M, strict=True) if v < last}, scored


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(96, 8)).astype(np.float32)
    nll = rows[:, 0] + rng.normal(size=96)
    return Table(rows, nll, ["a"] * 64 + ["b"] * 32)


@pytest.mark.parametrize("scope", ["global", "per_source"])
def test_the_subset_owes_nothing_to_the_pools_order_and_is_nested(table, scope):
    kept, scored = table.select(0.25, scope)
    assert len(kept) == scored.diagnostics["num_picked"] == 24
    assert table.shuffled(1).select(0.25, scope)[0] == kept
    assert table.select(0.125, scope)[0] < kept
    assert table.select(0.25, scope, seed=1)[1].diagnostics != scored.diagnostics


def test_a_loss_that_is_not_finite_comes_last(table):
    table.nll[3] = np.nan
    kept, scored = table.select(0.9, "global")
    assert "uid-3" not in kept
    assert scored.unranked["no_score"].tolist() == [n == 3 for n in range(96)]
    table.nll[:] = np.nan
    with pytest.raises(UserError, match="none of the 96 image records has a finite score"):
        table.select(0.5)


def test_the_stage_reads_losses_and_an_encoder(workplace):
    encoder = save_encoder("clip", workplace.root / "clip")
    asked = {"selection__options": f"{{model: {encoder}}}"}
    result = workplace.select(selection__scorer="self_filter_static", **asked)
    evidence = result.manifest["evidence"]
    assert evidence["image_embeddings"]["num_computed"] == 16
    assert evidence["answer_losses"]["num_computed"] == 24
    assert result.manifest["num_selected"] == 14
    assert result.manifest["num_fitted"] == 24
    clip = workplace.select(selection__scorer="clip_score", name="clip", **asked)
    assert clip.manifest["evidence"]["image_embeddings"]["num_computed"] == 0
