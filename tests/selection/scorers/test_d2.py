"""d2 against the algorithm written out: dense distances, plain loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError
from prism_tune.features.neighbours import connect_nearest
from prism_tune.selection.scorers import SCORERS
from prism_tune.selection.scorers.readable import score_readable
from prism_tune.selection.scorers.scorer import ScoringContext


def graph_by_definition(rows, num_neighbours, directed=False):
    """{(i, j): squared distance} of a graph of nearest neighbours."""
    squares = ((rows[:, None] - rows) ** 2).sum(axis=2)
    edges = {}
    for i in range(len(rows)):
        others = sorted((squares[i, j], j) for j in range(len(rows)) if j != i)
        for distance, j in others[:num_neighbours]:
            edges[i, j] = distance
            if not directed:
                edges[j, i] = distance
    return edges


def keep_by_definition(difficulty, edges, gamma_forward, gamma_reverse):
    """Every record in the order of keeping."""
    count = len(difficulty)
    x = [
        difficulty[i]
        + sum(
            np.exp(-gamma_forward * edges[i, j]) * difficulty[j]
            for j in range(count)
            if (i, j) in edges
        )
        for i in range(count)
    ]
    order = []
    while len(order) < count:
        k = max((i for i in range(count) if i not in order), key=lambda i: x[i])
        order.append(k)
        for j in range(count):
            if (k, j) in edges:
                x[j] -= np.exp(-gamma_reverse * edges[k, j]) * x[k]
    return order


def unit_rows(num_rows, width):
    rows = np.random.default_rng(3).normal(size=(num_rows, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("directed", [False, True])
def test_the_graph_is_that_of_the_definition(directed):
    rows = unit_rows(200, 4)
    graph = connect_nearest(rows, 5, directed=directed)
    found = {
        (i, int(j)): float(d)
        for i in range(200)
        for j, d in zip(
            graph.neighbour_E[graph.start_N[i] : graph.start_N[i + 1]],
            graph.squared_distance_E[graph.start_N[i] : graph.start_N[i + 1]],
            strict=True,
        )
    }
    assert found == pytest.approx(graph_by_definition(rows, 5, directed), abs=1e-12)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize(("forward", "reverse"), [(1.0, 0.4), (0.0, 0.3), (5.0, 0.0)])
def test_messages_are_those_of_the_definition(forward, reverse, directed):
    rows, difficulty = unit_rows(60, 3), np.random.default_rng(5).random(60)
    graph = connect_nearest(rows, 4, directed=directed)
    picks = graph.pick_in_reverse(graph.pass_forward(difficulty, forward), reverse, 60)
    edges = graph_by_definition(rows, 4, directed)
    assert picks.tolist() == keep_by_definition(difficulty, edges, forward, reverse)


def test_by_hand():
    """0 and 1 coincide, 2 is far: forward 3, 3, 1.5; 0 is kept, 1 falls to 0, so 2 comes next."""
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    graph = connect_nearest(rows, 1)
    values = graph.pass_forward(np.array([1.0, 2.0, 1.5]), gamma=100.0)
    assert values.tolist() == pytest.approx([3.0, 3.0, 1.5])
    assert graph.pick_in_reverse(values, 100.0, 3).tolist() == [0, 2, 1]


def test_without_messages_the_least_redundant_come_first(make_table):
    """With gammas so large that no message arrives, the difficulty alone decides."""
    table = make_table(unit_rows(80, 5))
    kept = table.select("d2", gamma_forward=1e9, gamma_reverse=1e9, num_components=None)
    assert kept == table.select("prism")


def test_messages_spread_the_subset():
    """30 images with 4 near-copies each: one of each is kept, by difficulty alone far fewer."""
    rng = np.random.default_rng(2)
    rows = np.repeat(unit_rows(30, 8), 4, axis=0) + 1e-3 * rng.normal(size=(120, 8))
    difficulty = rng.random(120)
    graph = connect_nearest(rows, 3)
    picks = graph.pick_in_reverse(graph.pass_forward(difficulty, 1.0), 1.0, 30)
    assert len(set(picks // 4)) == 30
    assert len(set(np.argsort(-difficulty)[:30] // 4)) < 25


def test_equal_rows_more_than_neighbours():
    graph = connect_nearest(np.ones((9, 2)), 3)
    assert np.diff(graph.start_N).min() >= 3
    assert not graph.squared_distance_E.any()
    assert len(graph.pick_in_reverse(np.ones(9), 1.0, 9)) == 9


def test_a_record_alone_has_no_neighbour():
    graph = connect_nearest(np.ones((1, 2)), 3)
    assert graph.pass_forward(np.array([2.0]), 1.0).tolist() == [2.0]
    assert graph.pick_in_reverse(np.array([2.0]), 1.0, 1).tolist() == [0]


def test_records_without_a_loss_come_last_and_change_nothing_for_the_others():
    """In a dense bunch, whose messages lift all of its records."""
    rng = np.random.default_rng(0)
    rows, losses = rng.normal(size=(200, 16)), rng.random(200)
    rows[:30] = rows[0] + 0.01 * rng.normal(size=(30, 16))
    losses[:10], losses[10:30] = np.nan, 1.0
    scored = measure_losses(rows, losses, budget=60)
    assert scored.unranked["no_score"].tolist() == [n < 10 for n in range(200)]
    assert np.isnan(scored.values_M).tolist() == [n < 10 for n in range(200)]
    others = measure_losses(rows[10:], losses[10:], budget=60, first=10)
    np.testing.assert_array_equal(scored.values_M[10:], others.values_M)


def measure_losses(rows, losses, *, budget, first=0):
    """d2's scores of records whose names are numbers from `first`."""
    config = Config.model_validate(
        {
            "name": "run",
            "model": {"path": "none"},
            "data": {"records": "none.json"},
            "selection": {
                "scorer": "d2",
                "budget": budget,
                "options": {"difficulty": "perplexity", "gamma_reverse": 5.0},
            },
        }
    )
    uids = [f"uid-{n}" for n in range(first, first + len(rows))]
    context = ScoringContext(
        config=SCORERS["d2"].complete(config),
        pool=SimpleNamespace(uids=uids, sources=["a"] * len(uids)),
        records_M=np.arange(len(uids)),
        groups_M=None,
        features_UD=rows,
        row_M=np.arange(len(uids)),
        measured={"nll": losses},
    )
    return score_readable(SCORERS["d2"], context)


def test_unknown_difficulties_are_refused(clustered):
    with pytest.raises(ConfigError, match="`difficulty` = 'loss': expected 'redundancy'"):
        clustered.run("d2", difficulty="loss")
