"""A model whose attention looks ahead is not tuned: its labels would leak."""

from __future__ import annotations

import json

import pytest

from prism_tune.errors import UserError
from prism_tune.training.train import train


def test_training_stops_before_the_first_step(make_run, monkeypatch, drawn_pool, tmp_path):
    monkeypatch.setattr(
        "transformers.models.llama.modeling_llama.create_causal_mask",
        lambda *, inputs_embeds, **_: inputs_embeds.new_zeros(
            len(inputs_embeds), 1, *2 * inputs_embeds.shape[1:2]
        ),
    )
    records = json.loads(drawn_pool.read_text())
    for record in records:
        record["conversations"][1]["value"] = "a red square and a circle"
    file = tmp_path / "long_answers.json"
    file.write_text(json.dumps(records))
    config, run = make_run(file=file)
    with pytest.raises(UserError, match=r"moves what predicts its earlier ones .* labels leak"):
        train(config, run)
    assert not (run.training / "final").exists()
