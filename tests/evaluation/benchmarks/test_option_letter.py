import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.evaluation.benchmarks.option_letter import find_letter, find_letter_lmms_eval

CASES = json.loads((Path(__file__).parent / "cases/option_letter.json").read_text())


@pytest.mark.parametrize(("answer", "options", "llava15", "lmms_eval"), CASES)
def test_letters_are_found_as_the_official_code_does(answer, options, llava15, lmms_eval):
    assert find_letter(answer, options) == llava15
    assert find_letter_lmms_eval(answer, options) == lmms_eval


@given(st.text(), st.dictionaries(st.sampled_from("ABCD"), st.text(min_size=1), min_size=1))
def test_any_answer_gives_an_option_or_nothing(answer, options):
    assert find_letter(answer, options) in {None, *options}
    assert find_letter_lmms_eval(answer, options) in {None, *"ABCDE"}
