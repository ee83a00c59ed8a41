"""Attention-weighted pooling against the full model's own attention weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.images import open_image
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError
from prism_tune.features.shards import StoredRows, list_shards, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.prompts import build_prompt
from prism_tune.selection.evidence.shallow import pool_attended

pytestmark = pytest.mark.slow


def pooled_by_definition(workplace, index, layer):
    """The full model's hidden state, weighted by what its last image token attends to."""
    config = workplace.config(model__attn_implementation="eager")
    model = load_model(config.model, dtype=torch.float32)
    processor = load_processor(config.model)
    pool = open_pool(config.data)
    prompt = build_prompt(pool[index], "whole", "vicuna_v1", processor)
    images = [open_image(path) for path in pool.image_paths(index)]
    inputs = processor(images=images, text=[prompt.text], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0]
    weights = outputs.attentions[layer - 1][0].mean(dim=0)[places[-1], places]
    states = outputs.hidden_states[layer][0, places]
    return ((weights[:, None] * states).sum(dim=0) / weights.sum()).numpy()


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_features_are_weighted_by_the_last_image_tokens_attention(workplace, layer):
    asked = {"selection__pooling": "attention", "selection__layer": layer}
    result = workplace.select(**asked)
    assert result.manifest["evidence"]["features"]["prompt"] == "prefix"
    shards = [read_shard(path) for path in list_shards(result.run.features)]
    rows = StoredRows(shards)[slice(0, 16)]
    for index in (0, 4):
        expected = pooled_by_definition(workplace, index, layer)
        nearest = rows[np.abs(rows - expected).sum(axis=1).argmin()]
        np.testing.assert_allclose(nearest, expected, rtol=1e-4, atol=1e-5)
    mean = workplace.select(name="mean", selection__layer=layer)
    assert mean.scores != result.scores


def test_leverage_takes_attended_features(workplace):
    asked = {"selection__scorer": "leverage", "selection__options": "{num_components: 4}"}
    attended = workplace.select(**asked, selection__pooling="attention")
    mean = workplace.select(**asked, name="mean")
    assert [row["score"] for row in attended.scores] != [row["score"] for row in mean.scores]


def test_weights_by_hand():
    """The last marked token, at place 2, pays 1/4 and 3/4 to the marked places 0 and 2."""
    hidden = torch.tensor([[[1.0], [50.0], [5.0], [70.0]]])
    attention = torch.zeros(1, 4, 4)
    attention[0, 2] = torch.tensor([0.1, 0.6, 0.3, 0.0])
    marked = torch.tensor([[True, False, True, False]])
    assert pool_attended(hidden, marked, attention).tolist() == [[4.0]]
    assert pool_attended(hidden, torch.zeros_like(marked), attention).isnan().all()


def test_embeddings_pay_no_attention(workplace):
    with pytest.raises(ConfigError, match="layer 0 pays none"):
        workplace.select(selection__pooling="attention", selection__layer=0)
