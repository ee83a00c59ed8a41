"""A base model taught another end token stops at it, wherever plain transformers generates."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from prism_tune.models.export import export
from prism_tune.run.folder import read_json
from prism_tune.training.train import train

PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def taught(make_run, tmp_path):
    """`taught(tuning, steps)`: the run folder of a model whose every answer is `red`."""
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "red"}]
    file = tmp_path / "pool.json"
    file.write_text(json.dumps([{"id": n, "conversations": turns} for n in range(2)]))

    def teach(tuning, steps):
        hf = {"max_steps": steps, "learning_rate": 1e-2, "per_device_train_batch_size": 2}
        hf["save_strategy"] = "no"
        model = {"template": "chatml"}
        config, run = make_run(tuning, file=file, hf=hf, model=model, tuning=tuning)
        train(config, run)
        return run

    return teach


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_templates_end_token_stands_in_the_generation_config(taught, tuning, tmp_path):
    run = taught(tuning, 2)
    export(run.root, tmp_path / "exported")
    for folder in (run.checkpoint, tmp_path / "exported"):
        assert read_json(folder / "generation_config.json")["eos_token_id"] == [2, 5]


@pytest.mark.slow
def test_plain_transformers_stops_where_the_answer_ends(taught, tmp_path):
    run = taught("full", 60)
    export(run.root, tmp_path / "exported")
    for folder in (run.checkpoint, tmp_path / "exported"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        inputs = tokenizer(PROMPT, return_tensors="pt")
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=12)
        answer = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :])
        assert answer == "red<|im_end|>"
