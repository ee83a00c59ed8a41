"""Features of whole conversations, against the full model's hidden states; text-only ones too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor

pytestmark = pytest.mark.slow


def states_by_definition(workplace, layer, pooling, max_length=2048):
    """Of every record: all its tokens' hidden states, or the last one's."""
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, range(len(pool)), processor, "vicuna_v1", max_length)
    found = []
    for number in range(len(pool)):
        inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples[number].items()}
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        found.append((states[-1] if pooling == "last" else states.mean(dim=0)).numpy())
    return np.array(found)


@pytest.mark.parametrize(("layer", "pooling"), [(2, "mean"), (4, "mean"), (4, "last")])
def test_every_token_of_every_record_counts(workplace, layer, pooling):
    result = workplace.select(
        selection__scorer="d2",
        selection__features="conversation",
        selection__layer=layer,
        selection__pooling=pooling,
        selection__text_only="rank",
        selection__budget_of="rows",
        selection__scope="global",
        selection__options="{difficulty: margin, num_neighbors: 5, directed: true}",
    )
    rows = StoredRows([read_shard(path) for path in workplace.shards()])
    found = dict(zip(rows.keys, rows[slice(0, 26)], strict=True))
    expected = states_by_definition(workplace, layer, pooling)
    actual = np.array([found[row["feature"]] for row in result.scores])
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert result.manifest["num_selected"] == 13


def test_a_conversation_is_cut_as_training_cuts_it(workplace):
    records = workplace.records()
    records[0]["conversations"][1]["value"] = "a long answer " * 40
    workplace.write_records(records[:3])
    asked = {"selection__features": "conversation", "selection__scorer": "kcenter"}
    result = workplace.select(**asked, data__max_length=200, selection__scope="global")
    rows = StoredRows([read_shard(path) for path in workplace.shards()])
    found = dict(zip(rows.keys, rows[slice(0, 2)], strict=True))[result.scores[0]["feature"]]
    expected = states_by_definition(workplace, 1, "mean", 200)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    whole = workplace.select(**asked, data__max_length=300, selection__scope="global")
    assert whole.manifest["evidence"]["features"]["num_computed"] == 2
