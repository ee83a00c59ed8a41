"""Budgets in words: none is rounded to another."""

from __future__ import annotations

import pytest

from prism_tune.config.budget_words import describe_cut
from prism_tune.config.sections import SelectionConfig


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (0.3, "30.0%"),
        (0.07, "7.0%"),
        (0.333, "33.3%"),
        (0.0125, "1.25%"),
        (0.0004, "0.04%"),
        (0.000001, "0.0001%"),
        (0.0000001, "1e-05%"),
        (1.0, "100.0%"),
        (5000, "5000"),
    ],
)
def test_a_budget_is_said_as_it_was_asked(budget, said):
    selection = SelectionConfig(scorer="random", budget=budget)
    assert describe_cut(selection) == f"{said} of the image records"
