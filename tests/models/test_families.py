"""Each family: tiny random checkpoints of the true architecture, parts found, shallow = full."""

from __future__ import annotations

import pytest
import torch
from support.tiny_families import TINY_FAMILIES, text_inputs

from prism_tune.config.sections import ModelConfig
from prism_tune.errors import UserError
from prism_tune.models.families import FAMILIES, part_of, parts
from prism_tune.models.load import load_model, load_shallow


@pytest.fixture(scope="module", params=sorted(TINY_FAMILIES))
def checkpoint(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    TINY_FAMILIES[request.param]().save_pretrained(directory)
    return request.param, ModelConfig(path=str(directory))


def test_every_family_has_a_tiny_checkpoint():
    assert {*TINY_FAMILIES, "idefics3"} - {"pixtral"} == set(FAMILIES)  # SmolVLM is Idefics3


def test_parts_hold_every_parameter_but_the_head(checkpoint):
    _, config = checkpoint
    model = load_model(config, dtype=torch.float32)
    found = parts(model)
    owners = {part_of(name, found) for name, _ in model.named_parameters()}
    assert owners - {"other"} == {"vision_tower", "projector", "language_model"}
    others = [n for n, _ in model.named_parameters() if part_of(n, found) == "other"]
    assert all(n.startswith("lm_head") or "image_newline" in n for n in others)
    assert len(found.language_model.layers) == 3


def test_shallow_text_states_equal_the_full_models(checkpoint):
    _, config = checkpoint
    model = load_model(config, dtype=torch.float32)
    inputs = text_inputs()
    with torch.no_grad():
        full = model(**inputs, output_hidden_states=True).hidden_states[1]
        shallow = load_shallow(config, 1, dtype=torch.float32)(**inputs, use_cache=False)
    torch.testing.assert_close(shallow.last_hidden_state, full, rtol=0, atol=0)


def test_unsupported_family_is_named():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with pytest.raises(UserError, match=r"model type 'llama' is not supported; supported: llava"):
        parts(LlamaForCausalLM(config))
