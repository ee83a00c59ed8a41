"""`selection.text_only: rank`: text-only records among all others, as published shares count."""

from __future__ import annotations

import pytest
import torch

from prism_tune.data.dataset import TuningDataset
from prism_tune.data.records import open_pool
from prism_tune.errors import ConfigError
from prism_tune.models.load import load_model
from prism_tune.models.processor import load_processor

RANKED = {
    "selection__text_only": "rank",
    "selection__budget_of": "rows",
    "selection__scope": "global",
}


def losses(workplace):
    """Every record's own loss, text-only ones shown no image."""
    config = workplace.config()
    model = load_model(config.model, dtype=torch.float32)
    pool, processor = open_pool(config.data), load_processor(config.model)
    examples = TuningDataset(pool, range(len(pool)), processor, "vicuna_v1", 2048)
    found = {}
    for number, name in enumerate(pool.ids):
        inputs = {k: v if k == "pixel_values" else v[None] for k, v in examples[number].items()}
        with torch.no_grad():
            found[name] = model(**inputs).loss.item()
    return found


def test_text_only_records_are_ranked_by_their_own_loss(workplace):
    asked = {**RANKED, "selection__scorer": "perplexity", "selection__keep": "low"}
    result = workplace.select(**asked)
    expected = losses(workplace)
    scores = {row["id"]: row["score"] for row in result.scores}
    assert scores == pytest.approx(expected, rel=1e-4)
    kept = {row["id"] for row in result.scores if row["selected"]}
    assert kept == set(sorted(expected, key=expected.get)[:13])  # half of 26 rows
    assert {row["reason"] for row in result.scores} == {"selected", "below_cut"}
    beside = workplace.select(selection__scorer="perplexity", selection__budget=0.25)
    assert beside.manifest["evidence"]["answer_losses"]["num_computed"] == 0


def test_images_of_text_only_records_are_worth_nothing(workplace):
    result = workplace.select(**RANKED, selection__scorer="visual_gain")
    gains = {row["id"]: row["score"] for row in result.scores}
    assert (gains["text-0"], gains["text-8"]) == (0.0, 0.0)
    assert len(gains) == 26
    assert any(gain < 0 for gain in gains.values())


def test_own_scores_of_text_only_records_count(workplace):
    records = workplace.records()
    table = workplace.root / "own.csv"
    lines = [f"{record['id']},{float('image' not in record)}" for record in records]
    table.write_text("\n".join(["id,score", *lines]))
    options = {"selection__scorer": "file", "selection__options": f"{{path: {table}}}"}
    result = workplace.select(**RANKED, **options, selection__budget=2)
    assert {row["id"] for row in result.scores if row["selected"]} == {"text-0", "text-8"}


@pytest.mark.parametrize("scorer", ["prism", "kcenter", "clip_score", "alignment"])
def test_methods_that_read_images_refuse_it(workplace, scorer):
    options = {"selection__options": "{model: none}"} if scorer == "clip_score" else {}
    with pytest.raises(ConfigError, match=f"rank: {scorer} has no score for records without"):
        workplace.select(**RANKED, selection__scorer=scorer, **options)


def test_it_takes_a_budget_of_rows(workplace):
    with pytest.raises(ConfigError, match=r"rank: .* has to count rows or tokens"):
        workplace.select(selection__scorer="random", selection__text_only="rank")
