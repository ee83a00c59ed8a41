"""A published method's name stands over the published method alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_tune.compare.grid_cells import plan_cells
from prism_tune.config.load import load_config
from prism_tune.config.sections import SelectionConfig
from prism_tune.results.labels import FREE_OPTIONS, PUBLISHED, UNSET, name_method
from prism_tune.run.folder import RunDir
from prism_tune.selection.scorers import SCORERS

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
        if path.stem == "tive" and "scope" in changes:
            continue  # its quotas are over the whole pool whatever this says
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
        ({"scorer": "tive", "budget_of": "rows", "text_only": "rank"}, "TIVE"),
        ({"scorer": "prism"}, "PRISM"),
        ({"scorer": "prism", "budget_of": "rows"}, "PRISM"),
        ({"scorer": "prism", "keep": "high"}, "prism (keep high)"),
        ({"scorer": "prism", "scope": "global"}, "prism (scope global)"),
        ({"scorer": "prism", "features": "text"}, "prism (features text)"),
        ({"scorer": "prism", "features_file": "own.npy"}, "prism"),
        ({"scorer": "random"}, "Random"),
        ({"scorer": "kcenter"}, "kcenter"),
    ],
)
def test_names(selection, name):
    assert name_method(SelectionConfig.model_validate(selection)) == name


def test_the_grid_of_published_methods_bears_their_names():
    config = load_config(PRESETS[0].parents[1] / "tables" / "published.yaml")
    cells = [cell.config for cell in plan_cells(config, RunDir(Path("runs")))]
    named = {
        config.selection.scorer: name_method(config.selection)
        for config in cells
        if config.training.records == "subset"
    }
    expected = {name: published.name for name, published in PUBLISHED.items()}
    assert named == {**expected, "random": "Random", "prism": "PRISM"}
    assert {c.selection.budget for c in cells if c.training.records == "subset"} == {0.2}


def preset(name, **changes):
    """A published preset's selection, changed; options and warm-ups are merged."""
    selection = load_config(next(path for path in PRESETS if path.stem == name)).selection
    tree = selection.model_dump()
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if key == "options" else value
    return SelectionConfig.model_validate(tree)


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        (preset("coincide", options={"tau": 5.0}), "coincide (other settings)"),
        (preset("coincide", options={"num_clusters": 3}), "coincide (other settings)"),
        (preset("coincide", options={"layers": [0]}), "coincide (other settings)"),
        (preset("coincide", must_keep="list.txt"), "coincide"),
        (preset("length", keep="low"), "length (other settings)"),
        (preset("length", options={"unit": "words"}), "length (other settings)"),
        (preset("semdedup", keep="high"), "semdedup (other settings)"),
        (preset("semdedup", options={"threshold": 0.1}), "semdedup (other settings)"),
        (preset("semdedup", layer=1), "semdedup (other settings)"),
        (preset("d2", options={"gamma_forward": 0.0}), "d2 (other settings)"),
        (preset("grand", reference=TUNED), "grand (tuned)"),
        (preset("el2n", reference={"warmup": {"share": 0.01}}), "el2n (warmed up)"),
        (preset("el2n", reference={"template": "vicuna_v1"}), "el2n (untuned)"),
        (preset("tive", reference={"warmup": {"share": 0.01}}), "tive (another warm-up)"),
        (preset("tive", reference={"warmup": {"seed": 3, "hf": {"bf16": True}}}), "TIVE"),
        (preset("tive", reference=TUNED), "tive (tuned)"),
        (preset("tive", options={"sharpness": 100.0}), "tive (other settings)"),
        (preset("tive", options={"dimension": 8192}), "TIVE"),
        (preset("datatailor", reference=TUNED), "datatailor (tuned)"),
        (preset("scalselect", options={"energy": 0.1}), "scalselect (other settings)"),
        (preset("scalselect", layer=20), "scalselect (other settings)"),
        (preset("scalselect", keep="low"), "scalselect (other settings)"),
        (preset("clip_score", options={"model": "/models/siglip"}), "clip_score (other settings)"),
        (preset("clip_score", options={"model": "/m/clip-vit-large-patch14"}), "CLIP-Score"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_the_subset_depends_on_takes_the_name(selection, name):
    assert name_method(selection) == name


def test_the_last_layer_is_that_of_the_model():
    """TinyLLaVA-2B has 24 layers; the preset's 32 are behind none of them."""
    assert name_method(preset("d2", layer=24), depth=24) == "D2"
    assert name_method(preset("d2", layer=24), depth=32) == "d2 (other settings)"


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_option_of_a_method_is_known_to_its_name(name):
    """An option that a name does not know takes it away; the defaults it lets pass are today's."""
    known = PUBLISHED[name].options
    for option, described in SCORERS[name].options.model_fields.items():
        if option in known:
            assert (UNSET in known[option]) <= (described.get_default() in known[option])
        else:
            assert option in FREE_OPTIONS
