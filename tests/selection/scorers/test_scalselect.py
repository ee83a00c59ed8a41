"""scalselect against the singular value decomposition, and its pooling against the full model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError
from prism_tune.features import reduction
from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.encoding import InstructionDataset
from prism_tune.selection.evidence.shallow import pool_instructed
from prism_tune.selection.scorers import scalselect


def leverage_by_definition(rows, energy):
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    held = np.cumsum(values**2) / (values**2).sum()
    k = int(np.flatnonzero(held >= energy - 1e-12)[0]) + 1
    return (left[:, :k] ** 2).sum(axis=1), k


@pytest.mark.parametrize("energy", [0.3, 0.9, 1.0])
def test_scores_are_those_of_the_definition(clustered, energy, monkeypatch):
    """Records of one image count as often as they are; in each source by itself or in the pool."""
    monkeypatch.setattr(reduction, "_BLOCK_BYTES", 7 * 8 * 12)  # seven rows at a time
    rows = clustered.features_UD.astype(np.float64)[clustered.row_N]
    sources = np.array(clustered.sources)
    scores = clustered.score("scalselect", energy=energy)
    for source in "ab":
        at = np.flatnonzero(sources == source)
        expected, _ = leverage_by_definition(rows[at], energy)
        found = [scores[clustered.uids[n]] for n in at]
        np.testing.assert_allclose(found, expected, atol=1e-9)
    clustered.sources = None
    scored = clustered.run("scalselect", energy=energy)
    expected, k = leverage_by_definition(rows, energy)
    np.testing.assert_allclose(scored.values_M, expected, atol=1e-9)
    assert scored.diagnostics["num_directions"] == k


@pytest.mark.parametrize(("energy", "k"), [(0.9, 2), (0.6, 1), (0.93, 3)])
def test_directions_by_hand(energy, k):
    """Singular values 3, 2, 1: 9, 13 and 14 of 14."""
    assert scalselect.span(np.diag([4.0, 9.0, 1.0]), energy).shape == (3, k)


def test_order_nesting_and_lone_sources(clustered, make_table):
    assert clustered.shuffled(1).select("scalselect") == clustered.select("scalselect")
    assert clustered.select("scalselect", budget=0.1) < clustered.select("scalselect", budget=0.3)
    rows = np.random.default_rng(0).normal(size=(9, 4))
    rows[2] = np.nan
    scored = make_table(rows, sources=["a"] * 8 + ["b"]).run("scalselect", budget=5)
    assert np.flatnonzero(~np.isfinite(scored.values_M)).tolist() == [2]
    assert scored.diagnostics["num_non_finite"] == 1
    assert scored.unranked["feature_not_finite"].tolist() == [False, False, True] + [False] * 6
    assert not make_table(np.ones((6, 3))).run("scalselect").values_M.any()


def test_pooled_tokens_by_hand():
    """The mean of two asking positions' attention; the last of the four tokens is not taken."""
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [100.0], [50.0], [70.0]]])
    attention = torch.zeros(1, 6, 6)
    attention[0, 4, :4] = torch.tensor([0.3, 0.2, 0.09, 0.01])
    attention[0, 5, :4] = torch.tensor([0.2, 0.1, 0.06, 0.04])
    image = torch.tensor([[True, True, True, True, False, False]])
    asking = torch.tensor([[False, False, False, False, True, True]])
    assert pool_instructed(hidden, image, asking, attention).tolist() == [[3.0]]
    assert pool_instructed(hidden, image, torch.zeros_like(asking), attention).isnan().all()


def pooled_by_definition(workplace, index):
    config = workplace.config(model__attn_implementation="eager")
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, [index], processor, "vicuna_v1", 2048)[0]
    inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples.items()}
    labels = inputs.pop("labels")[0]
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    asking = ~is_image & (labels == -100)
    weights = outputs.attentions[0][0].mean(dim=0)[asking].mean(dim=0)[is_image]
    weights = (weights / weights.sum()).tolist()
    taken, total = [], 0.0
    for place in sorted(range(len(weights)), key=lambda n: -weights[n]):
        taken.append(place)
        total += weights[place]
        if total > 0.9:
            break
    return outputs.hidden_states[1][0][is_image][taken].mean(dim=0).numpy(), len(taken)


def test_features_are_pooled_as_the_instruction_attends(workplace):
    records = workplace.records()
    records[0]["conversations"] += [
        {"from": "human", "value": "and what colour is the square?"},
        {"from": "gpt", "value": "there is none"},
    ]
    workplace.write_records(records)
    result = workplace.select(selection__scorer="scalselect")
    assert result.manifest["evidence"]["features"]["prompt"] == "answers"
    rows = StoredRows([read_shard(path) for path in workplace.shards()])
    assert rows.shape[0] == 24  # of records, not of images
    found = dict(zip(rows.keys, rows[slice(0, 24)], strict=True))
    for index in (0, 1, 5):
        expected, num_taken = pooled_by_definition(workplace, index)
        np.testing.assert_allclose(
            found[result.scores[index]["feature"]], expected, rtol=1e-4, atol=1e-5
        )
        assert num_taken <= 4
    alone = workplace.select(
        selection__scorer="scalselect", **workplace.elsewhere(), selection__tokens_per_batch=1
    )
    assert alone.manifest["subset_sha256"] == result.manifest["subset_sha256"]


def test_an_answer_that_is_not_learnt_asks_nothing(workplace):
    """The same tokens look at the image as where it is learnt."""
    records = workplace.records()
    turns = [
        {"from": "human", "value": "<image>\nwhat is it?"},
        {"from": "gpt", "value": "a circle of red", "loss": True},
        {"from": "human", "value": "and what colour is the square?"},
        {"from": "gpt", "value": "there is none"},
    ]
    unlearnt = [turns[0], {**turns[1], "loss": False}, *turns[2:]]
    records[0]["conversations"], records[1]["conversations"] = turns, unlearnt
    workplace.write_records(records)
    config = workplace.config()
    pool, processor = open_pool(config.data), load_processor(config.model)
    learnt, other = InstructionDataset(pool, [0, 1], config, processor)
    assert torch.equal(learnt.inputs["input_ids"], other.inputs["input_ids"])
    assert torch.equal(learnt.instruction_L, other.instruction_L)
    asking = processor.tokenizer.decode(other.inputs["input_ids"][other.instruction_L])
    assert "what colour is the square" in asking
    assert "a circle of red" not in asking
    assert "there is none" not in asking


def test_other_features_do_not_go_with_it(workplace):
    with pytest.raises(ConfigError, match="scalselect pools image tokens, got text"):
        workplace.select(selection__scorer="scalselect", selection__features="text")
    with pytest.raises(ConfigError, match="instruction pools image tokens"):
        workplace.select(selection__pooling="instruction", selection__features="joint")
    with pytest.raises(ConfigError, match="instruction needs layers from 1"):
        workplace.select(selection__scorer="scalselect", selection__layer=0)
