"""Every selector on features through the whole stage: one extraction serves them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prism_tune.errors import ConfigError
from prism_tune.selection.scorers import SCORERS

KERNELS = ["kernel_prism", "kernel_repulsion"]
ON_FEATURES = [*KERNELS, "leverage", "kcenter", "kmeanspp", "semdedup", "d2"]


def test_selectors_share_one_feature_cache(workplace):
    first = workplace.select(selection__scorer="prism")
    assert first.manifest["evidence"]["features"]["num_computed"] == 16
    kept = set()
    for scorer in ON_FEATURES:
        result = workplace.select(selection__scorer=scorer)
        assert result.manifest["evidence"]["features"]["num_computed"] == 0
        assert result.manifest["num_zero_norm"] == 0
        chosen = [row["uid"] for row in result.scores if row["selected"] and row["rank"]]
        assert len(chosen) == sum(1 for row in result.scores if row["rank"]) // 2
        kept.add(tuple(chosen))
    assert len(kept) > 1


@pytest.mark.parametrize("scorer", ["random", "length", "prism", "alignment", "perplexity", "el2n"])
def test_methods_without_settings_refuse_any(scorer, workplace):
    with pytest.raises(ConfigError, match=f"options of {scorer}: unknown key `alpha`"):
        workplace.select(selection__scorer=scorer, selection__options="{alpha: 2}")


def test_options_of_a_base_config_can_be_taken_back(workplace):
    text = workplace.config_file.read_text()
    workplace.config_file.write_text(
        text.replace("budget: 0.5}", "budget: 0.5, scorer: kernel_prism, options: {alpha: 2.0}}")
    )
    assert workplace.select().manifest["scorer"] == "kernel_prism"
    result = workplace.select(selection__scorer="random", selection__options="null")
    assert result.manifest["scorer"] == "random"


def test_every_method_has_an_end_of_its_own():
    """Which scores are kept where `selection.keep` is left out."""
    high = {name for name, scorer in SCORERS.items() if scorer.keep == "high"}
    assert high == {
        "length",
        "el2n",
        "grand",
        "clip_score",
        "leverage",
        "file",
        "visual_gain",
        "scalselect",
        "icons_heldout",
        "less_heldout",
    }
    assert {name for name, scorer in SCORERS.items() if scorer.keep == "middle"} == {"perplexity"}


def test_a_wrong_option_is_refused_before_anything_is_computed(workplace):
    with pytest.raises(ConfigError, match="unknown key `aplha`; did you mean `alpha`"):
        workplace.select(selection__scorer="kernel_prism", selection__options="{aplha: 2}")
    assert not (workplace.root / "runs").exists()


def test_the_documentation_names_who_ranks_text_only_records():
    """Methods on features, which do it where these are of texts, are not named."""
    text = (Path(__file__).parents[2] / "docs/selectors.md").read_text()
    told = text.split("`selection.text_only: rank` ranks text-only records")[1].split("\n\n")[0]
    named = {name for name in re.findall(r"`(\w+)`", told) if name in SCORERS}
    assert named == {name for name, scorer in SCORERS.items() if scorer.ranks_text}
