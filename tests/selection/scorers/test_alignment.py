"""The alignment scorer against NumPy's own correlation and the full model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prism_tune.data.images import open_image
from prism_tune.data.records import open_pool
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor
from prism_tune.selection.evidence.shallow import pool_positions
from prism_tune.selection.scorers.alignment import correlate_pairs


def test_correlation_is_numpys():
    rows = np.random.default_rng(0).normal(size=(700, 2 * 40)).astype(np.float32)
    expected = [np.corrcoef(row[:40].astype(float), row[40:].astype(float))[0, 1] for row in rows]
    np.testing.assert_allclose(correlate_pairs(rows), expected, atol=1e-12)


def test_correlation_by_hand():
    rows = np.array([[1, 2, 3, 2, 4, 6], [1, 2, 3, 3, 2, 1], [1, 2, 3, 5, 5, 5]], dtype=float)
    np.testing.assert_allclose(correlate_pairs(rows), [1, -1, np.nan])


def correlate_in_full_model(workplace, index):
    """The record's score by the whole model on the prompt up to the question's end."""
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    processor = load_processor(config.model)
    pool = open_pool(config.data)
    question = pool[index].turns[0].text.removeprefix("<image>\n")
    from prism_tune.chat.builtin_templates import SYSTEM

    text = f"{SYSTEM} USER: <image>\n{question}"
    image = open_image(pool.image_paths(index)[0])
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    with torch.no_grad():
        state = model(**inputs, output_hidden_states=True).hidden_states[1][0]
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    num_words = len(processor.tokenizer(question, add_special_tokens=False)["input_ids"])
    visual, words = state[is_image].mean(dim=0), state[-num_words:].mean(dim=0)
    return np.corrcoef(visual.numpy(), words.numpy())[0, 1]


def test_scores_are_those_of_the_full_model(workplace):
    result = workplace.select(selection__scorer="alignment")
    assert result.manifest["evidence"]["features"]["prompt"] == "pair"
    assert result.manifest["evidence"]["features"]["num_units"] == 24
    assert result.manifest["num_without_correlation"] == 0
    for index in (0, 1, 3):
        expected = correlate_in_full_model(workplace, index)
        assert result.scores[index]["score"] == pytest.approx(expected, abs=1e-5)
    shape = sorted((r for r in result.scores if r["source"] == "shape"), key=lambda r: r["score"])
    assert [row["selected"] for row in shape] == [True] * 8 + [False] * 8


def test_rescoring_with_prism_extracts_its_own_features(workplace):
    workplace.select(selection__scorer="alignment")
    result = workplace.select(selection__scorer="prism")
    assert result.manifest["evidence"]["features"]["num_units"] == 16
    assert result.scores == workplace.select(**workplace.elsewhere()).scores


def test_a_question_of_nothing_but_an_image_has_no_score(workplace):
    records = workplace.records()
    records[0]["conversations"][0]["value"] = "<image>"
    workplace.write_records(records)
    result = workplace.select(selection__scorer="alignment")
    assert result.manifest["num_without_correlation"] == 1
    assert result.scores[0]["score"] is None
    assert result.scores[0]["unranked"] == "no_correlation"


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_nothing_is_undefined(pooling):
    mask = torch.tensor([[False, False], [True, False]])
    pooled = pool_positions(torch.ones(2, 2, 3), mask, pooling)
    assert pooled.isnan().tolist() == [[True] * 3, [False] * 3]
