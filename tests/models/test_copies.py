"""LoRA beside a tower that is trained in full and has the projector in it, as Qwen-VL's has."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from support.tiny_families import IMAGE_TOKEN_ID, TINY_FAMILIES

from prism_tune.config.sections import ModelConfig, TrainingConfig
from prism_tune.models.families import FAMILIES, part_of, parts
from prism_tune.models.load import load_model
from prism_tune.models.tuning import parameter_groups, prepare_tuning

PROJECTOR_IN_TOWER = sorted(
    name for name, family in FAMILIES.items() if family.projector.startswith(family.vision_tower)
)
ONE_IMAGE = {
    "input_ids": torch.tensor([[1, *[IMAGE_TOKEN_ID] * 4, 2, 3, 4]]),
    "mm_token_type_ids": torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0]]),
    "pixel_values": torch.linspace(-1, 1, 16 * 1176).reshape(16, 1176),
    "image_grid_thw": torch.tensor([[1, 4, 4]]),
    "labels": torch.tensor([[-100, -100, -100, -100, -100, 2, 3, 4]]),
}


@pytest.fixture
def step(tmp_path):
    """How far one step moves the parameters of each part: the largest change of each.

    From a checkpoint that is saved, loaded and merged. By Adam, whose first step is the learning
    rate in every number that has a gradient.
    """

    def take(name, **training):
        torch.manual_seed(0)
        TINY_FAMILIES[name]().save_pretrained(tmp_path / "base")
        base = ModelConfig(path=str(tmp_path / "base"))
        section = TrainingConfig(lora={"r": 4, "lora_alpha": 8}, **training)
        model = load_model(base, dtype=torch.float32)
        model = prepare_tuning(model, section, weights_dtype=torch.float32)
        groups = parameter_groups(model, section, decayed=set(), weight_decay=0.0)
        optimizer = torch.optim.Adam(list(groups), lr=1e-3, eps=1e-12)
        model(**ONE_IMAGE).loss.backward()
        optimizer.step()
        model.save_pretrained(tmp_path / "adapter")

        before = load_model(base, dtype=torch.float32)
        adapted = load_model(base, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(adapted, tmp_path / "adapter")
        after = adapted.merge_and_unload().state_dict()
        changes = {}
        for parameter, value in before.named_parameters():
            change = (after[parameter] - value).abs().max().item()
            changes.setdefault(part_of(parameter, parts(before)), []).append(change)
        return changes

    return take


@pytest.mark.parametrize("name", PROJECTOR_IN_TOWER)
def test_a_projector_in_a_trained_tower_is_trained_at_its_own_rate(step, name):
    changes = step(name, freeze=(), learning_rates={"projector": 1e-2})
    assert changes["projector"] == pytest.approx([1e-2] * len(changes["projector"]), rel=1e-2)
    assert max(changes["vision_tower"]) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_a_frozen_projector_in_a_trained_tower_stays_as_it_was(step, name):
    changes = step(name, freeze=("projector",))
    assert set(changes["projector"]) == {0.0}
    assert max(changes["vision_tower"]) == pytest.approx(1e-3, rel=1e-2)
