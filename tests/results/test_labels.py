"""A published method's name stands over the published method alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_tune.config.load import load_config
from prism_tune.config.sections import SelectionConfig
from prism_tune.results.labels import PUBLISHED, name_method

PRESETS = sorted(
    (Path(__file__).parents[2] / "configs" / "experiments" / "published").glob("*.yaml")
)
TUNED = {"model": "some/tuned-model"}


def test_every_published_name_has_a_preset():
    assert {path.stem for path in PRESETS} == set(PUBLISHED)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_bears_the_published_name(path):
    selection = load_config(path).selection
    assert name_method(selection) == PUBLISHED[path.stem].name
    for changes in ({"scope": "per_source"}, {"budget_of": "tokens"}, {"text_only": "keep"}):
        if path.stem == "clip_score" and "text_only" in changes:
            continue  # it has no score for them
        other = selection.model_copy(update=changes)
        assert name_method(other).startswith(path.stem)
        assert PUBLISHED[path.stem].name not in name_method(other)


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        ({"scorer": "coincide"}, "coincide (per source, untuned)"),
        ({"scorer": "coincide", "scope": "global"}, "coincide (untuned)"),
        ({"scorer": "coincide", "scope": "global", "reference": TUNED}, "coincide"),
        (
            {
                "scorer": "coincide",
                "scope": "global",
                "reference": TUNED,
                "budget_of": "rows",
                "text_only": "rank",
            },
            "COINCIDE",
        ),
        ({"scorer": "el2n"}, "el2n (per source, untuned)"),
        (
            {
                "scorer": "el2n",
                "scope": "global",
                "reference": TUNED,
                "budget_of": "rows",
                "text_only": "rank",
                "keep": "low",
            },
            "el2n (other settings)",
        ),
        ({"scorer": "length"}, "length (per source, other settings)"),
        (
            {"scorer": "scalselect", "scope": "global", "text_only": "drop"},
            "ScalSelect",
        ),
        ({"scorer": "d2"}, "d2 (per source, untuned, other settings)"),
        ({"scorer": "presel"}, "presel"),
        ({"scorer": "visual_gain"}, "visual_gain"),
        ({"scorer": "prism"}, "PRISM"),
        ({"scorer": "random"}, "Random"),
        ({"scorer": "kcenter"}, "kcenter"),
    ],
)
def test_names(selection, name):
    assert name_method(SelectionConfig.model_validate(selection)) == name
