"""What a model reads of a record with its own system line, or answers that are not learnt."""

from __future__ import annotations

import json

import pytest
from support.tiny import build_processor, build_tokenizer, draw_image

from prism_tune.config.sections import Config
from prism_tune.data.records import open_pool
from prism_tune.selection.evidence.prompts import build_prompt
from prism_tune.selection.evidence.units import find_units

TURNS = [
    {"from": "human", "value": "<image>\nx?"},
    {"from": "gpt", "value": "yes", "loss": False},
    {"from": "human", "value": "y?"},
    {"from": "gpt", "value": "no"},
]
RECORDS = [
    {"image": "a.png", "conversations": TURNS},
    {"image": "a.png", "conversations": TURNS, "system": "Be brief."},
    {"image": "a.png", "conversations": TURNS[2:], "system": "Be brief."},
]


@pytest.fixture
def opened(tmp_path):
    draw_image(tmp_path / "a.png", 0)
    (tmp_path / "pool.json").write_text(json.dumps(RECORDS))
    config = Config.model_validate(
        {
            "name": "run",
            "output_dir": str(tmp_path / "runs"),
            "model": {"path": "x", "template": "chatml"},
            "data": {"records": str(tmp_path / "pool.json"), "num_workers": 0},
        }
    )
    return config, open_pool(config.data), build_processor(build_tokenizer())


@pytest.mark.parametrize("kind", ["prefix", "whole", "joint", "pair", "answers"])
def test_prompts_begin_with_the_records_own_system_line(opened, kind):
    _, pool, processor = opened
    own = build_prompt(pool[1], kind, "chatml", processor)
    line = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert own.text == line + build_prompt(pool[0], kind, "chatml", processor).text
    learnt = [own.text[start:end] for start, end in own.instruction_spans]
    expected = {"joint": ["x?", "y?"], "pair": ["x?", "y?"], "answers": ["no<|im_end|>"]}
    assert learnt == expected.get(kind, [])


def test_records_of_one_image_share_a_feature_where_their_system_line_is_one(opened):
    config, pool, processor = opened
    units = find_units(config, pool, "prefix", processor, {})
    assert len(units.keys) == 2
    assert units.unit_N[1] == units.unit_N[2] != units.unit_N[0]
