"""Selectors on gradients through the whole stage, with a warm-up of a few real steps."""

from __future__ import annotations

import json

import numpy as np
import pytest

import prism_tune
from prism_tune.cli.stages import select as verb
from prism_tune.config.references import reference_of
from prism_tune.config.sections import ReferenceConfig, SelectionConfig
from prism_tune.selection.evidence import store as feature_store
from prism_tune.selection.evidence.gradients.sketches import GradientSketches
from prism_tune.training.train import train

HF = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "save_strategy": "no"}
WARMUP = {"share": 0.3, "lora_rank": 4, "max_steps": 2, "learning_rate": 0.01, "hf": HF}
REFERENCE = json.dumps({"warmup": WARMUP})


def select(workplace, scorer, *, tune=train, **overrides):
    asked = {
        "selection__reference": REFERENCE,
        "selection__options": "{dimension: 64}",
        **overrides,
    }
    return workplace.select(tune=tune, selection__scorer=scorer, **asked)


@pytest.mark.slow
def test_the_three_share_a_warm_up_and_two_their_sketches(workplace):
    found = {name: select(workplace, name, name=name) for name in ("tive", "icons_heldout")}
    found["less_heldout"] = select(workplace, "less_heldout", name="less", tune=None)
    computed = [r.manifest["evidence"]["gradient_sketches"]["num_computed"] for r in found.values()]
    assert computed == [24, 24, 0]  # attention alone, all matrices, the same again
    assert {result.manifest["num_selected"] for result in found.values()} == {14}
    warmups = [result.manifest["reference"]["warmup"]["folder"] for result in found.values()]
    assert len(set(warmups)) == 1
    means = found["tive"].manifest["mean_gradient_norms"]
    kept = found["tive"].manifest["per_source"]
    assert set(means) == {"colour", "shape"}
    larger = max(means, key=means.get)
    other = min(means, key=means.get)
    if kept[larger]["kept"] < kept[larger]["total"]:
        ratio = (kept[larger]["kept"] + 0.5) / (kept[other]["kept"] + 0.5)
        assert ratio == pytest.approx(means[larger] / means[other], rel=0.3)
    heldout = [row for row in found["icons_heldout"].scores if row["unranked"] == "held_out"]
    assert [row["source"] for row in heldout] == ["shape"]  # a tenth of 16; 8 are too few
    assert not any(row["selected"] for row in heldout)


@pytest.mark.slow
def test_the_verb_and_the_library_train_the_warm_up(workplace):
    """Each hands the selection the training stage; the second finds what the first has trained."""
    items = [f"selection.reference={REFERENCE}", "selection.scorer=el2n"]
    verb(workplace.config_file, [*items, "name=verb"])
    config = workplace.config(selection__reference=REFERENCE, selection__scorer="el2n")
    subset = prism_tune.select(config, name="library")
    runs = [workplace.read(workplace.run_dir(name=name)) for name in ("verb", "library")]
    assert [run.manifest["timings"]["warmup_seconds"] > 0 for run in runs] == [True, True]
    folders = {run.manifest["reference"]["warmup"]["folder"] for run in runs}
    assert len(folders) == 1
    assert len(subset) == 14


@pytest.mark.slow
def test_a_kill_among_the_gradients_loses_a_shard(workplace, monkeypatch):
    monkeypatch.setattr(feature_store, "UNITS_PER_SHARD", 6)
    whole = select(workplace, "tive", output_dir=str(workplace.root / "whole"))
    run_batch, done = GradientSketches.run_batch, []

    def die(self, batch):
        done.append(len(batch))
        if len(done) == 3:
            raise KeyboardInterrupt
        return run_batch(self, batch)

    monkeypatch.setattr(GradientSketches, "run_batch", die)
    with pytest.raises(KeyboardInterrupt):
        select(workplace, "tive")
    assert len(workplace.shards("gradient_sketches")) == 2
    resumed = select(workplace, "tive", tune=None)
    assert resumed.manifest["evidence"]["gradient_sketches"]["num_computed"] == 12
    scores = [[row["score"] for row in r.scores if row["rank"]] for r in (resumed, whole)]
    np.testing.assert_allclose(*scores, rtol=1e-4)


def test_the_target_itself_is_read_where_the_reference_is_empty(workplace):
    result = select(workplace, "tive", tune=None, selection__reference="{}")
    assert result.manifest["reference"]["warmup"] is None
    assert result.manifest["timings"]["warmup_seconds"] == 0


@pytest.mark.parametrize(
    ("scorer", "share", "per_source"),
    [("tive", 0.08, "equal"), ("icons_heldout", 0.05, "proportional")],
)
def test_a_method_has_the_warm_up_that_was_published(scorer, share, per_source):
    warmup = reference_of(SelectionConfig(scorer=scorer)).warmup
    assert (warmup.share, warmup.per_source) == (share, per_source)
    assert (warmup.lora_rank, warmup.lora_alpha, warmup.epochs) == (128, 256, 1)
    empty = SelectionConfig(scorer=scorer, reference={})
    assert reference_of(empty) == ReferenceConfig()
    assert reference_of(SelectionConfig(scorer="perplexity")) is None
