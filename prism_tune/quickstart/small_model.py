"""The comparison's model: the quickstart's with fewer layers, so that many runs can be made.

A converted language model and vision tower go in; the same with some of their layers come out. The
language model is no longer one that speaks: `comparison_start.yaml` mends it, once for all cells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

LANGUAGE_LAYERS = (0, 1, 29)
"""Of 30. The first two read the prompt, the last one speaks the head's language."""

_LAYER = re.compile(r"^(model\.layers\.)(\d+)\.")


def keep_language_layers(model: LlamaForCausalLM, layers: Sequence[int]) -> LlamaForCausalLM:
    """A Llama of the given decoder layers, in this order; embeddings, norm and head are kept."""
    place = {str(old): str(new) for new, old in enumerate(layers)}
    weights = {}
    for name, value in model.state_dict().items():
        found = _LAYER.match(name)
        if found is None:
            weights[name] = value
        elif found[2] in place:
            weights[f"{found[1]}{place[found[2]]}.{name[found.end() :]}"] = value
    settings = {**model.config.to_dict(), "num_hidden_layers": len(layers)}
    settings.pop("layer_types", None)
    small = LlamaForCausalLM(LlamaConfig(**settings))
    small.load_state_dict(weights)
    small.tie_weights()
    return small.eval()


def keep_first_tower_layers(tower: Dinov2Model, num_layers: int) -> Dinov2Model:
    """A DINOv2 of the first layers: the same hidden states up to `num_layers`."""
    settings = tower.config.to_dict()
    for derived in ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices"):
        settings.pop(derived, None)
    small = Dinov2Model(Dinov2Config(**{**settings, "num_hidden_layers": num_layers}))
    weights = tower.state_dict()
    small.load_state_dict({name: weights[name] for name in small.state_dict()})
    return small.eval()
