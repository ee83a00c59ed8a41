"""What estimates take from a checkpoint's headers, and which of its weights are trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prism_tune.compare.estimates import estimate_run, trained_parts
from prism_tune.compare.plan import make_plan
from prism_tune.compare.plan_table import build_plan_table
from prism_tune.compare.shapes import PoolSize, Shape, read_shape
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.models.load import load_model
from prism_tune.models.tuning import prepare_tuning

HEAD = "language_model.lm_head"
TABLE = "language_model.model.embed_tokens.weight"
SHAPE = Shape(10, 1000, 200, 50, 20, 8, 4, 12)
POOL = PoolSize(num_records=100, num_image_records=80, num_images=40, num_bytes=3000)
"""Image records of 4 + 6 tokens, others of 6: 920 in all."""


def write_headers(folder: Path, tensors: dict[str, list[int]]) -> str:
    """A checkpoint of shapes that say something, and of weights that do not."""
    blank = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in tensors.items()}
    save_file(blank, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize(
    ("tensors", "embeddings"),
    [
        ({TABLE: [512, 8], f"{HEAD}.weight": [512, 8], f"{HEAD}.bias": [512]}, 2 * 4096 + 512),
        ({TABLE: [512, 8]}, 4096),  # tied
    ],
)
def test_width_and_vocabulary_are_of_the_table_of_words(tensors, embeddings, tmp_path):
    shape = read_shape(write_headers(tmp_path, tensors))
    assert shape is not None
    assert (shape.width, shape.vocabulary, shape.embeddings) == (8, 512, embeddings)
    assert shape.head == 4096


@pytest.mark.parametrize("length", [0, 4, 40, 5000])
def test_a_checkpoint_that_is_not_whole_is_named(length, tmp_path):
    folder = write_headers(tmp_path, {TABLE: [512, 8]})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or not whole"):
        read_shape(folder)


@pytest.mark.parametrize(
    ("tuning", "frozen"),
    [
        ("full", ["vision_tower"]),
        ("full", ["projector"]),
        ("full", ["vision_tower", "language_model"]),
        ("full", []),
        ("projector", ["vision_tower"]),
    ],
)
def test_what_counts_as_trained_is_what_the_training_trains(tuning, frozen, tiny_llava_dir):
    config = Config.model_validate(
        {
            "name": "x",
            "model": {"path": str(tiny_llava_dir)},
            "data": {"records": "p.json"},
            "training": {"tuning": tuning, "freeze": frozen},
        }
    )
    shape = read_shape(config.model.path)
    assert shape is not None
    model = load_model(config.model, dtype=torch.float32, device=torch.device("cpu"))
    tuned = prepare_tuning(model, config.training, weights_dtype=torch.float32)
    trained = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    final_norm = shape.width if "language_model" not in frozen and tuning == "full" else 0
    assert sum(trained_parts(config, shape).values()) == trained - final_norm


@pytest.mark.parametrize("key", ["max_steps", "per_device_train_batch_size"])
def test_a_number_that_is_none_is_named(key):
    training = {"hf": {key: "abc"}}
    tree = {"name": "x", "model": {"path": "m"}, "data": {"records": "p"}, "training": training}
    with pytest.raises(ConfigError, match=rf"training\.hf\.{key} = 'abc': expected a number"):
        estimate_run(Config.model_validate(tree), SHAPE, POOL)


@pytest.mark.parametrize(
    ("budget", "text_only", "tokens", "images"),
    [
        (320, "keep", 320, 20),
        (0.5, "keep", 460, 34),
        (460, "own_source", 460, 40),
        (400, "drop", 400, 40),
        (10_000, "keep", 920, 80),
    ],
)
def test_a_budget_of_tokens_is_of_so_many_tokens(budget, text_only, tokens, images):
    selection = {"budget": budget, "budget_of": "tokens", "text_only": text_only}
    config = Config.model_validate(
        {
            "name": "x",
            "model": {"path": "m"},
            "data": {"records": "p.json"},
            "selection": selection,
        }
    )
    found = estimate_run(config, SHAPE, POOL)
    assert (found.num_tokens, found.num_images) == pytest.approx((tokens, images))


def test_one_file_read_in_two_ways_is_two_pools(tiny_llava_dir, tmp_path):
    """Every third record has a second picture."""
    records = [
        {"question": "a?", "answer": "a", "first": f"{n}.png", "second": None if n % 3 else "b.png"}
        for n in range(9)
    ]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = [{"name": key, "data": {"columns": {"image": key}}} for key in ("first", "second")]
    config = Config.model_validate(
        {
            "name": "x",
            "output_dir": str(tmp_path / "runs"),
            "model": {"path": str(tiny_llava_dir)},
            "data": {"records": str(pool), "policy": {"image_unread": "skip"}},
            "training": {"records": "pool", "deepspeed": None},
            "compare": {"rows": rows, "seeds": [0], "metrics": []},
        }
    )
    table = build_plan_table(make_plan(config), None)
    images = [row[table.header.index("images")].text for row in table.rows]
    assert images == ["9", "3"]
