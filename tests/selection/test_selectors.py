"""Every selector on features through the whole stage: one extraction serves them all."""

from __future__ import annotations

import pytest

from prism_tune.errors import ConfigError

ON_FEATURES = ["kernel_prism", "leverage", "kcenter", "kmeanspp", "semdedup", "d2"]


def test_selectors_share_one_feature_cache(workplace):
    first = workplace.select(selection__scorer="prism")
    assert first.manifest["features"]["num_computed"] == 16
    kept = set()
    for scorer in ON_FEATURES:
        result = workplace.select(selection__scorer=scorer)
        assert result.manifest["features"]["num_computed"] == 0
        assert result.manifest["num_zero_norm"] == 0
        chosen = [row["uid"] for row in result.scores if row["selected"] and row["rank"]]
        assert len(chosen) == sum(1 for row in result.scores if row["rank"]) // 2
        kept.add(tuple(chosen))
    assert len(kept) > 1


def test_a_wrong_option_is_refused_before_anything_is_computed(workplace):
    with pytest.raises(ConfigError, match="unknown key `aplha`; did you mean `alpha`"):
        workplace.select(selection__scorer="kernel_prism", selection__options="{aplha: 2}")
    assert not workplace.run_dir().features.exists()
