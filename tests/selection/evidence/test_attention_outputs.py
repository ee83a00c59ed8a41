"""COINCIDE's rows against the outputs of the projections themselves, one record at a time."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError
from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.schema import Turn
from prism_tune.selection.evidence.states import attention_outputs
from prism_tune.selection.evidence.states.attention_outputs import (
    choose_layers,
    make_block,
)

RANKED = {
    "selection__text_only": "rank",
    "selection__budget_of": "rows",
    "selection__scope": "global",
}


def rows_by_definition(workplace, layers):
    """Of every record, text-only ones behind a blank image."""
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, [], processor, "vicuna_v1", config.data.max_length)
    outputs = []
    for layer in layers:
        projection = model.model.language_model.layers[layer].self_attn.o_proj
        projection.register_forward_hook(lambda _, inputs, output: outputs.append(output[0]))
    found = []
    for index in range(len(pool)):
        record, names = pool[index], pool.image_paths(index)
        images = [Image.open(name).convert("RGB") for name in names]
        if not images:
            asked = Turn("human", "<image>\n" + record.turns[0].text)
            record = dataclasses.replace(record, turns=(asked, *record.turns[1:]))
            images = [Image.new("RGB", (336, 336))]
        inputs = examples.encode_record(record, images)
        is_image = (inputs["input_ids"] == model.config.image_token_id).numpy()
        behind = np.arange(len(is_image)) > np.flatnonzero(is_image).max()
        outputs.clear()
        with torch.no_grad():
            model(**{k: v if k == "pixel_values" else v[None] for k, v in inputs.items()})
        blocks = []
        for mask in (is_image, behind):
            for states in outputs:
                block = np.tanh(states.numpy()[mask].mean(axis=0))
                blocks.append(block / np.linalg.norm(block))
        found.append(np.concatenate(blocks) / np.sqrt(len(blocks)))
    return np.array(found)


def test_rows_are_those_of_the_definition(workplace):
    result = workplace.select(
        selection__scorer="coincide", selection__options="{layers: [0, 2]}", **RANKED
    )
    rows = StoredRows([read_shard(path) for path in workplace.shards("attention_outputs")])
    expected = rows_by_definition(workplace, (0, 2))
    assert rows.shape == (26, 4 * 32)
    found = rows[slice(0, 26)]
    for row in expected:
        assert np.abs(found - row).max(axis=1).min() < 1e-5
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert result.manifest["num_selected"] == 13


def test_only_the_layers_needed_are_loaded_and_tau_computes_nothing(workplace):
    asked = {"selection__scorer": "coincide"}
    deep = workplace.select(**asked, selection__options="{layers: [3]}")
    shallow = workplace.select(**asked, selection__options="{layers: [0]}", name="shallow")
    flops = [r.manifest["timings"]["flops_estimate"] for r in (deep, shallow)]
    assert flops[1] < flops[0]
    again = workplace.select(**asked, selection__options="{layers: [3], tau: 0.5}")
    assert again.manifest["evidence"]["attention_outputs"]["num_computed"] == 0


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(24, (3, 7, 11, 15, 19)), (32, (4, 10, 15, 20, 26)), (4, (0, 1, 2)), (1, (0,))],
)
def test_layers_lie_at_the_papers_depth(depth, layers, monkeypatch):
    monkeypatch.setattr(attention_outputs, "count_layers", lambda model: depth)
    config = SimpleNamespace(model=None, selection=SimpleNamespace(options={}))
    assert choose_layers(config) == layers


@pytest.mark.parametrize("layers", ["[4]", "[1, 1]", "[]"])
def test_layers_that_are_not_there_are_refused(workplace, layers):
    with pytest.raises(ConfigError, match="expected different layers of 0 to 3"):
        workplace.select(selection__scorer="coincide", selection__options=f"{{layers: {layers}}}")


def test_blocks_by_hand():
    """tanh, then length 1; without a token zero, and of what is not finite NaN."""
    nan = float("nan")
    values = torch.tensor([[nan, 1.0], [float("inf"), 1.0], [0.0, 0.0], [0.0, 30.0], [1e-3, 1e-3]])
    expected = [[nan, nan], [nan, nan], [0.0, 0.0], [0.0, 1.0], [0.5**0.5, 0.5**0.5]]
    found = make_block(values, None)
    torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)


def test_projected_blocks_keep_their_angles():
    """Ten blocks of width 2,048 in 128 numbers each."""
    matrices = attention_outputs.draw_projections(10, 2048)
    assert [tuple(matrix.shape) for matrix in matrices] == [(2048, 128)] * 10
    assert not torch.equal(matrices[0], matrices[1])
    drawn = torch.Generator().manual_seed(1)
    shared = torch.randn(10, 1, 2048, generator=drawn)
    values = (shared + torch.randn(10, 30, 2048, generator=drawn)) / 50
    exact, short = torch.zeros(30, 30), torch.zeros(30, 30)
    for block, matrix in zip(values, matrices, strict=True):
        whole, projected = make_block(block, None), make_block(block, matrix)
        exact, short = exact + whole @ whole.T / 10, short + projected @ projected.T / 10
    assert 0.4 < exact[0, 1] < 0.6
    assert (exact - short).abs().max() < 0.1
    assert (exact - short).square().mean().sqrt() < 0.05
