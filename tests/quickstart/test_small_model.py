"""Fewer layers: the ones that stay compute what they did."""

from __future__ import annotations

import torch
from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

from prism_tune.quickstart.small_model import keep_first_tower_layers, keep_language_layers


def test_a_llama_of_chosen_layers_runs_these_one_after_the_other():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=5,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config).eval()
    small = keep_language_layers(model, (0, 1, 4))
    tokens = torch.arange(7)[None]
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True).hidden_states
        found = small(tokens, output_hidden_states=True)
        torch.testing.assert_close(found.hidden_states[2], states[2])
        # By definition: the layers in between are taken out of the list and nothing else.
        model.model.layers = torch.nn.ModuleList([model.model.layers[i] for i in (0, 1, 4)])
        model.config.num_hidden_layers = 3
        torch.testing.assert_close(found.logits, model(tokens, use_cache=False).logits)
    assert small.config.num_hidden_layers == 3
    assert small.lm_head.weight is small.model.embed_tokens.weight


def test_a_tower_cut_off_has_the_same_states_below():
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=12, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14
    )
    tower = Dinov2Model(config).eval()
    small = keep_first_tower_layers(tower, 2)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        whole = tower(pixels, output_hidden_states=True).hidden_states
        found = small(pixels, output_hidden_states=True).hidden_states
    assert len(found) == 3
    for mine, theirs in zip(found, whole, strict=False):
        torch.testing.assert_close(mine, theirs)
