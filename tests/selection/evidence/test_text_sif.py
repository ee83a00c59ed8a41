"""Features of texts against the paper's formula, over the model's own table."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from transformers import AutoTokenizer

from prism_tune.features.shards import StoredRows, read_shard
from prism_tune.models.load import load_model

TEXT = {
    "selection__features": "text",
    "selection__scorer": "kcenter",
    "selection__text_only": "rank",
    "selection__budget_of": "rows",
    "selection__scope": "global",
}


def texts_of(workplace):
    return [
        " ".join(" ".join(t["value"].replace("<image>", " ") for t in r["conversations"]).split())
        for r in workplace.records()
    ]


def embeddings_by_definition(workplace, texts):
    """The weighted means of all records, before the first direction is taken off."""
    table = load_model(workplace.config().model, dtype=torch.float32).get_input_embeddings()
    tokenizer = AutoTokenizer.from_pretrained(workplace.config().model.path)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    counts = Counter(token for of_text in ids for token in of_text)
    total = sum(counts.values())
    vectors = table.weight.detach().numpy().astype(np.float64)
    return np.array(
        [
            sum(1e-3 / (1e-3 + counts[token] / total) * vectors[token] for token in of_text)
            / len(of_text)
            for of_text in ids
        ]
    )


def test_rows_are_those_of_the_formula(workplace):
    result = workplace.select(**TEXT)
    texts = texts_of(workplace)
    expected = embeddings_by_definition(workplace, texts)
    shards = [read_shard(path) for path in workplace.shards("text_sif")]
    rows = StoredRows(shards)
    assert rows.shape == (len(set(texts)), 32)
    assert len(set(texts)) < 26
    found = dict(zip(rows.keys, rows[slice(0, len(rows.keys))], strict=True))
    actual = np.array([found[row["feature"]] for row in result.scores])
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    assert result.manifest["num_selected"] == 13


def test_what_all_texts_share_is_taken_off(workplace):
    """leverage of the rows without their first singular direction, as of a matrix of one's own."""
    options = {"selection__options": "{num_components: 5}"}
    asked = {**TEXT, **options, "selection__scorer": "leverage"}
    result = workplace.select(**asked)
    rows = embeddings_by_definition(workplace, texts_of(workplace))
    common = np.linalg.svd(rows)[2][0]
    path = workplace.root / "own.npy"
    np.save(path, rows - np.outer(rows @ common, common))
    own = workplace.select(
        **{**asked, "selection__features": "visual"}, selection__features_file=path, name="own"
    )
    np.testing.assert_allclose(
        [row["score"] for row in result.scores],
        [row["score"] for row in own.scores],
        rtol=1e-3,
        atol=1e-5,
    )


def test_another_pool_has_other_frequencies_and_another_store(workplace):
    workplace.select(**TEXT)
    again = workplace.select(**TEXT, selection__budget=0.3)
    assert again.manifest["evidence"]["text_sif"]["num_computed"] == 0
    workplace.write_records(workplace.records()[:20])
    other = workplace.select(**TEXT)
    assert other.manifest["evidence"]["text_sif"]["num_computed"] > 0
