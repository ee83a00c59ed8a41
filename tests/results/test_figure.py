"""The figure of a comparison: what stands where."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from prism_tune.intervals import difference
from prism_tune.results.figure import build_figure, draw_comparison


def row(selector, budget, values, difference=None):
    mean = sum(values) / len(values) if values else None
    return {
        "selector": selector,
        "budget": budget,
        "performance": None if mean is None else {"mean": mean, "sd": 1.0},
        "performances": {str(seed): value for seed, value in enumerate(values)},
        "difference": difference,
    }


@pytest.fixture
def found():
    return {
        "name": "trial",
        "metrics": ["quickstart.accuracy"],
        "baseline": "random",
        "rows": [
            row("random", 0.1, [50.0, 60.0]),
            row("prism", 0.1, [40.0, 50.0], {"mean": -10.0, "low": -14.0, "high": -6.0}),
            row("failed", 0.1, []),
            row("random", 200, [70.0]),
            row("prism", 200, [80.0], {"mean": 10.0, "low": None, "high": None}),
            row("whole_pool", None, [90.0]),
        ],
    }


def test_every_run_is_a_dot_and_every_selector_a_mean_with_its_interval(found):
    dots, bars, means, *_ = build_figure(found).data
    assert list(zip(dots.y, dots.x, dots.text, strict=True)) == [
        ("prism", 40.0, "seed 0"), ("prism", 50.0, "seed 1"),
        ("random", 50.0, "seed 0"), ("random", 60.0, "seed 1"),
    ]  # fmt: skip
    assert (means.y, means.x) == (("prism", "random"), (45.0, 55.0))  # the best on top
    assert (bars.y, bars.x) == (("prism",), (45.0,))
    assert (bars.error_x.array, bars.error_x.arrayminus) == ((4.0,), (4.0,))


def test_a_bar_touches_the_baselines_line_exactly_where_nothing_was_told_apart():
    """Seed 2 of the baseline failed: over the shared ones the difference is +0.9, within noise."""
    prism, random = {0: 50.0, 1: 50.0, 2: 80.0}, {0: 49.0, 1: 49.2}
    noise = asdict(difference(prism, random))
    apart = asdict(difference({0: 50.0, 1: 50.3}, random))
    rows = [
        row("prism", 0.2, list(prism.values()), noise),
        row("d2", 0.2, [50.0, 50.3], apart),
        row("random", 0.2, list(random.values())),
    ]
    figure = build_figure({"name": "x", "metrics": ["m"], "baseline": "random", "rows": rows})
    _, bars, means = figure.data
    (line,) = figure.layout.shapes
    assert line.x0 == pytest.approx(49.1)
    assert dict(zip(means.y, means.x, strict=True))["prism"] == pytest.approx(60.0)
    ends = zip(bars.x, bars.error_x.arrayminus, bars.error_x.array, strict=True)
    found = dict(zip(bars.y, ((x - low, x + high) for x, low, high in ends), strict=True))
    assert found["prism"] == pytest.approx((48.729, 51.271), abs=0.001)  # 49.1 lies within
    assert found["d2"] == pytest.approx((49.515, 50.785), abs=0.001)  # above 49.1
    assert "over seeds (those that both have)" in figure.layout.title.text


def test_one_seed_has_no_interval_and_budgets_have_their_own_panels(found):
    figure = build_figure(found)
    assert [note.text for note in figure.layout.annotations] == ["10 % of the pool", "200 records"]
    assert [trace.xaxis for trace in figure.data] == ["x", "x", "x", "x2", "x2", "x2"]
    assert figure.data[4].x == ()
    lines = [(line.x0, line.xref) for line in figure.layout.shapes]
    assert lines == [(55.0, "x"), (90.0, "x"), (70.0, "x2"), (90.0, "x2")]


def test_nothing_measured_yet_is_an_empty_figure(found):
    found["rows"] = [row("random", 0.1, [])]
    assert not build_figure(found).data


def test_the_page_needs_nothing_else_and_names_are_escaped(found):
    found["metrics"] = ["<img src=x>"]
    page = draw_comparison(found)
    assert "<img src=x>" not in page
    assert 'src="http' not in page
