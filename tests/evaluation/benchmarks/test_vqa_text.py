import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.evaluation.benchmarks.vqa_text import CONTRACTIONS, normalize_m4c, normalize_vizwiz

CASES = json.loads((Path(__file__).parent / "cases/vqa_text.json").read_text())


@pytest.mark.parametrize(("text", "m4c", "vizwiz"), CASES)
def test_answers_are_normalised_as_the_official_code_does(text, m4c, vizwiz):
    assert normalize_m4c(text) == m4c
    assert normalize_vizwiz(text) == vizwiz


def test_only_the_first_32_periods_go():
    assert normalize_m4c("x" + "." * 40) == "x" + "." * 8


def test_the_contractions_are_all_there():
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["y'all'dve"] == "y'all'd've"
    assert CONTRACTIONS["'ow'sat"] == "'ow's'at"


@given(st.text())
def test_normal_forms_are_lower_case_single_spaced_and_idempotent_in_words(text):
    for normalize in (normalize_m4c, normalize_vizwiz):
        form = normalize(text)
        assert form == " ".join(form.split())
        assert not {"a", "an", "the"} & set(form.split())
