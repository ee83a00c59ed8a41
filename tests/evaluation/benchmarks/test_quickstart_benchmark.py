import json

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.quickstart import BENCHMARK
from prism_tune.results.columns import mean_questions
from prism_tune.schema import Prediction

ROWS = [
    ("1", "red", "color"), ("2", "3", "count"), ("3", "yes", "exists"), ("4", "no", "exists"),
]  # fmt: skip


@pytest.fixture
def questions(tmp_path):
    records = [
        {"question_id": i, "image": f"{i}.png", "text": f"q{i}", "answer": a, "category": c}
        for i, a, c in ROWS
    ]
    (tmp_path / "test.json").write_text(json.dumps(records))
    return BENCHMARK.load_questions(tmp_path / "test.json", "llava15")


def score(questions, texts):
    answers = [Prediction(q.question_id, q.text, t) for q, t in zip(questions, texts, strict=True)]
    return BENCHMARK.score(questions, answers, "llava15")


def test_the_prompt_is_the_question_alone(questions, tmp_path):
    assert (questions[0].text, questions[0].images) == ("q1", ("1.png",))
    assert BENCHMARK.load_questions(tmp_path, "llava15") == questions


def test_exact_match_ignores_case_space_and_one_final_period(questions):
    result = score(questions, [" Red.", "3..", "YES", "nope"])
    assert result.metrics == {
        "accuracy_open": 50,
        "accuracy_yes_no": 50,
        "accuracy": 50,
        "accuracy_color": 100,
        "accuracy_count": 0,
        "accuracy_exists": 50,
    }
    assert next(iter(result.metrics)) == "accuracy_open"
    assert result.per_question == {"1": 1, "2": 0, "3": 1, "4": 0}


def test_the_questions_behind_a_metric_are_declared(tmp_path):
    rows = [
        {"question_id": i, "image": "i.png", "text": "q", "answer": a, "category": ""}
        for i, a in (("open-1", "red"), ("open-2", "3"), ("yes_no-1", "yes"))
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    questions = BENCHMARK.load_questions(tmp_path / "test.json", "llava15")
    result = score(questions, ["red", "4", "yes"])
    assert mean_questions(result, "accuracy_open") == ["open-1", "open-2"]
    assert mean_questions(result, "accuracy_yes_no") == ["yes_no-1"]
    assert mean_questions(result, "accuracy") == ["open-1", "open-2", "yes_no-1"]


def test_maximum_and_floor(questions):
    assert set(score(questions, ["red", "3", "yes", "no"]).metrics.values()) == {100}
    assert set(score(questions, ["", "\n", "?", "\x00"]).metrics.values()) == {0}


def test_a_wrong_file_is_named(tmp_path):
    (tmp_path / "test.json").write_text('[{"question_id": 1}]')
    with pytest.raises(UserError, match=r"test.json, record 1: no key 'image'"):
        BENCHMARK.load_questions(tmp_path, "llava15")
