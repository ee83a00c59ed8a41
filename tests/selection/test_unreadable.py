"""What no model could read: refused where it is all, last where it is some, by every method."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_encoders import save_encoder

from prism_tune.errors import UserError
from prism_tune.selection.evidence.states.attention_outputs import AttentionOutputs
from prism_tune.selection.evidence.states.state_spectra import StateSpectra
from prism_tune.selection.scorers import SCORERS

pytestmark = pytest.mark.slow

READING = sorted(set(SCORERS) - {"random", "length", "file"})
ENCODED = ("clip_score", "self_filter_static")
GRADIENTS = ("tive", "icons_heldout", "less_heldout")


@pytest.fixture(scope="module")
def damaged(tiny_llava_dir, tmp_path_factory):
    """The tiny model, whose second layer gives NaN, and a CLIP that gives nothing else."""
    root = tmp_path_factory.mktemp("damaged")
    shutil.copytree(tiny_llava_dir, root / "model")
    save_encoder("clip", root / "clip")
    for folder, of in (("model", "layers.1.self_attn.o_proj"), ("clip", "_projection")):
        (file,) = (root / folder).glob("*.safetensors")
        weights = load_file(file)
        for name in [name for name in weights if of in name]:
            weights[name] = torch.full_like(weights[name], torch.nan)
        save_file(weights, file, metadata={"format": "pt"})
    return root


def ask(root, scorer):
    asked = {"model__path": root / "model", "selection__layer": 3, "selection__scorer": scorer}
    if scorer == "coincide":
        asked["selection__options"] = "{num_clusters: 4, layers: [0, 2]}"
    if scorer in ENCODED:
        asked["selection__options"] = f"{{model: {root / 'clip'}}}"
    if scorer in GRADIENTS:
        asked["selection__reference"] = f"{{model: {root / 'model'}}}"
    return asked


@pytest.mark.parametrize("scope", ["global", "per_source"])
@pytest.mark.parametrize("scorer", READING)
def test_a_model_that_says_nothing_selects_nothing(scorer, scope, damaged, workplace):
    message = (
        f"{scorer}: none of the 24 image records has a finite score; "
        "selection.dtype=float32 may help"
    )
    with pytest.raises(UserError, match=message):
        workplace.select(**ask(damaged, scorer), selection__scope=scope)
    assert not (workplace.run_dir().selection / "stage.json").exists()


@pytest.mark.parametrize(
    ("scorer", "options"),
    [("d2", "{difficulty: margin}"), ("kernel_repulsion", "{gamma: 1.0, gain_share: 1.0}")],
)
def test_losses_beside_features_that_are_finite(scorer, options, damaged, workplace):
    """Those of the first layer are."""
    asked = {**ask(damaged, scorer), "selection__layer": 1}
    with pytest.raises(UserError, match="none of the 24 image records has a finite score"):
        workplace.select(**asked, selection__options=options)


@pytest.mark.parametrize("scope", ["global", "per_source"])
@pytest.mark.parametrize(
    ("scorer", "of"), [("coincide", AttentionOutputs), ("datatailor", StateSpectra)]
)
def test_some_that_cannot_be_read_come_last(scorer, of, scope, workplace, monkeypatch):
    """A third of each batch, in one layer alone."""
    run_batch = of.run_batch

    def spoil(self, batch):
        (rows,) = run_batch(self, batch)
        spoiled = rows.clone()
        spoiled[::3, -3:] = torch.nan
        return [spoiled]

    monkeypatch.setattr(of, "run_batch", spoil)
    options = "{num_clusters: 4, layers: [0, 2]}" if scorer == "coincide" else "null"
    result = workplace.select(
        selection__scorer=scorer,
        selection__scope=scope,
        selection__options=options,
        selection__budget_of="images",
    )
    scored = [row for row in result.scores if row["rank"]]
    unread = [row for row in scored if row["unranked"] == "no_score"]
    assert len(unread) == result.manifest["unranked"]["reasons"]["no_score"]["num"] >= 8
    for source in ("colour", "shape") if scope == "per_source" else (None,):
        own = [row for row in scored if source in (None, row["source"])]
        worst = max(row["rank"] for row in own if row not in unread)
        assert worst < min(row["rank"] for row in own if row in unread)
    assert all(row["score"] is None or np.isnan(row["score"]) for row in unread)


def test_prism_keeps_no_record_that_it_could_not_read_before_others(workplace):
    """As zeros they had redundancy 0, below that of records alike."""
    rows = np.random.default_rng(0).normal(size=(26, 4)) + np.repeat([5.0, -5.0], 13)[:, None]
    rows[[2, 9, 20]] = np.nan
    np.save(workplace.root / "own.npy", rows)
    result = workplace.select(
        selection__features_file=workplace.root / "own.npy", selection__scope="global"
    )
    unread = [row for row in result.scores if row["unranked"] == "feature_not_finite"]
    assert len(unread) == result.manifest["num_non_finite"] > 0
    assert not any(row["selected"] for row in unread)
