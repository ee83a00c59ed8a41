"""Evidence of another model than the target: named, with an adapter, or warmed up first."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from prism_tune.config.sections import WarmupConfig
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.load import load_model
from prism_tune.run.timings import read_timings
from prism_tune.selection.reference.warmup import draw_records, share_equally
from prism_tune.training import train as train_module
from prism_tune.training.train import train


@pytest.fixture(scope="module")
def other_model(tiny_llava_dir, tmp_path_factory):
    """The same architecture with other weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_llava_dir, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({k: 0.9 * v for k, v in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_llava_dir, tmp_path_factory):
    """A LoRA on the tiny model's attention, with weights that are not zero."""
    from prism_tune.config.sections import ModelConfig

    torch.manual_seed(0)
    model = load_model(ModelConfig(path=str(tiny_llava_dir)), dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return folder


def scores(result):
    return {row["id"]: row["score"] for row in result.scores if row["rank"]}


@pytest.mark.parametrize("scorer", ["perplexity", "prism"])
def test_evidence_of_another_model_is_that_of_it_as_the_target(workplace, other_model, scorer):
    asked = {"selection__scorer": scorer}
    reference = json.dumps({"model": str(other_model), "template": "vicuna_v1"})
    own = workplace.select(**asked, name="own")
    read = workplace.select(**asked, selection__reference=reference)
    target = workplace.select(
        **asked, name="t", model__path=str(other_model), output_dir=str(workplace.root / "o")
    )
    assert scores(read) == pytest.approx(scores(target), rel=1e-6)
    assert scores(read) != pytest.approx(scores(own), rel=1e-3)
    assert read.manifest["reference"] == {
        "model": str(other_model),
        "adapter": None,
        "warmup": None,
    }
    assert "reference" not in own.manifest


@pytest.mark.parametrize("scorer", ["perplexity", "prism"])
def test_an_adapter_is_read_merged_and_kept_apart(workplace, adapter, scorer, tmp_path):
    """Against the merged weights as a model of their own; the target's evidence stays its own."""
    from prism_tune.models.checkpoint import load_tuned

    config = workplace.config()
    merged = load_tuned(config, adapter, dtype=torch.float32, device=torch.device("cpu"))
    shutil.copytree(config.model.path, tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")
    asked = {"selection__scorer": scorer}
    own = workplace.select(**asked, name="own")
    read = workplace.select(**asked, selection__reference__adapter=str(adapter))
    reference = json.dumps({"model": str(tmp_path / "merged"), "template": "vicuna_v1"})
    whole = workplace.select(**asked, name="whole", selection__reference=reference)
    assert scores(read) == pytest.approx(scores(whole), rel=1e-5)
    assert scores(read) != pytest.approx(scores(own), rel=1e-3)
    kind = "features" if scorer == "prism" else "answer_losses"
    assert len(list((workplace.root / "runs/evidence" / kind).iterdir())) == 3
    again = workplace.select(**asked, name="own", selection__budget=0.25)
    assert again.manifest["evidence"][kind]["num_computed"] == 0


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"model": "./nowhere"}, r"selection.reference.model: ./nowhere: no such directory"),
        ({"adapter": "./nowhere"}, r"selection.reference.adapter: nowhere: no adapter_config.json"),
        ({"revision": "main"}, r"selection.reference.revision: of which model"),
        ({"adapter": "a", "warmup": {}}, r"selection.reference: `adapter` is a LoRA"),
    ],
)
def test_a_reference_that_cannot_be_is_refused_early(workplace, reference, said):
    with pytest.raises(ConfigError, match=said):
        workplace.select(selection__reference=json.dumps(reference))
    assert not (workplace.root / "runs/run").exists()
