import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.evaluation.benchmarks.mmmu_answers import (
    draw_choices,
    judge_open,
    normalize,
    parse_choice,
    parse_choice_lmms_eval,
    parse_open,
)

CASES = Path(__file__).parent / "cases"
OPTIONS = {"A": "glass", "B": "water", "C": "wood", "D": "stone"}


@pytest.mark.parametrize(
    ("response", "llava15", "lmms_eval"), json.loads((CASES / "mmmu_choice.json").read_text())
)
def test_letters_are_parsed_as_the_official_code_does(response, llava15, lmms_eval):
    assert parse_choice(response, OPTIONS) == llava15
    assert parse_choice_lmms_eval(response, OPTIONS) == lmms_eval


@pytest.mark.parametrize(
    ("response", "gold", "right"), json.loads((CASES / "mmmu_open.json").read_text())
)
def test_open_answers_are_judged_as_the_official_code_does(response, gold, right):
    assert judge_open(parse_open(response), gold) is right


def test_normal_forms():
    assert normalize(" 1,234.567 ") == [1234.57]
    assert normalize("Ab") == ["ab"]
    assert normalize("B") == [" b", "b "]


def test_letters_are_drawn_as_the_official_module_draws_them():
    """One generator, seeded 42 at import; files in the alphabet's order, numbers counted up."""
    official = ["validation_Art_2", "validation_Art_10", "validation_Art_Theory_1"]
    letters = {official[0]: "ABCD", official[1]: "ABC", official[2]: "ABCDE"}
    random.seed(42)
    expected = {key: random.choice(letters[key]) for key in official}
    assert draw_choices(letters) == expected
    assert draw_choices(dict(reversed(letters.items()))) == expected


@given(st.text())
def test_any_response_is_parsed(response):
    assert parse_choice(response, OPTIONS) in {None, *OPTIONS}
    assert parse_choice_lmms_eval(response, OPTIONS) in {None, *OPTIONS}
    judge_open(parse_open(response), ["3", "x"])
