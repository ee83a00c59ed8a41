import json
import random
from pathlib import Path

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.vizwiz import (
    BENCHMARK,
    SUFFIX,
    credit_m4c_both,
    credit_m4c_first,
    credit_vizwiz,
)
from prism_tune.schema import Prediction

CASES = json.loads((Path(__file__).parent / "cases/vizwiz_credit.json").read_text())


def entry(number, question, answers, answer_type="other", answerable=1):
    return {
        "image": f"VizWiz_val_{number:08d}.jpg", "question": question, "answer_type": answer_type,
        "answerable": answerable, "answers": [
            {"answer": text, "answer_confidence": "yes"} for text in answers
        ],
    }  # fmt: skip


@pytest.fixture
def val(tmp_path):
    entries = [
        entry(0, "What is THIS?", ["basil leaves"] * 10),
        entry(1, "What colour?", ["unanswerable"] * 8 + ["red"] * 2, "unanswerable", 0),
        entry(2, "Is it on?", ["yes"] * 10, "yes/no"),
    ]
    (tmp_path / "val.json").write_text(json.dumps(entries))
    return tmp_path / "val.json"


@pytest.mark.parametrize(("answer", "counts", "official", "m4c_first", "m4c_both"), CASES)
def test_credit_under_each_rule(answer, counts, official, m4c_first, m4c_both):
    references = [text for text, count in counts.items() for _ in range(count)]
    assert credit_vizwiz(answer, references) == pytest.approx(official)
    assert credit_m4c_first(answer, references) == pytest.approx(m4c_first)
    assert credit_m4c_both(answer, references) == pytest.approx(m4c_both)


def test_questions_are_capitalised_the_python_way(val):
    questions = BENCHMARK.load_questions(val, "llava15")
    assert questions[0].text == (
        "What is this?\nWhen the provided information is insufficient, respond with "
        "'Unanswerable'.\nAnswer the question using a single word or phrase."
    )
    assert [q.question_id for q in questions] == [0, 1, 2]


def test_metrics_by_type_and_answers_by_row_or_image_name(val):
    questions = BENCHMARK.load_questions(val, "llava15")
    answers = [
        Prediction(2, questions[2].text, "No"),
        Prediction("VizWiz_val_00000000", questions[0].text, "Basil leaves."),
        Prediction("VizWiz_val_00000001.jpg", questions[1].text, "Unanswerable"),
    ]
    metrics = BENCHMARK.score(questions, answers, "llava15").metrics
    assert metrics == {
        "accuracy": pytest.approx(200 / 3),
        "accuracy_m4c_first": pytest.approx(200 / 3),
        "accuracy_other": 100,
        "accuracy_unanswerable": 100,
        "accuracy_yes_no": 0,
        "accuracy_answerable": 50,
        "unanswerable_rate": pytest.approx(100 / 3),
    }


def test_order_does_not_matter_and_garbage_is_the_floor(val):
    questions = BENCHMARK.load_questions(val, "llava15")
    answers = [Prediction(q.question_id, q.text, q.reference[0]) for q in questions]
    shuffled = random.Random(3).sample(answers, 3)
    result = BENCHMARK.score(questions, shuffled, "lmms_eval")
    assert result.metrics == BENCHMARK.score(questions, answers, "lmms_eval").metrics
    assert result.metrics["accuracy"] == pytest.approx(100)
    garbage = [Prediction(q.question_id, "", "\n%%\x00") for q in questions]
    assert BENCHMARK.score(questions, garbage, "llava15").metrics["accuracy"] == 0


def test_llavas_test_file_gives_no_score_but_the_upload_file(tmp_path):
    rows = [
        {"question_id": n, "image": f"VizWiz_test_{n:08d}.jpg", "text": f"Q{n}?" + SUFFIX,
         "category": "default"} for n in range(2)
    ]  # fmt: skip
    path = tmp_path / "llava_test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = BENCHMARK.load_questions(path, "llava15")
    answers = [Prediction(1, rows[1]["text"], "The Red, Car."), Prediction(0, rows[0]["text"], "A")]
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics == {}
    assert result.notes[0].startswith("no references in these annotations (test split): no score")
    upload = BENCHMARK.write_submission(questions, answers, tmp_path)
    assert json.loads(upload.read_text()) == [
        {"image": "VizWiz_test_00000000.jpg", "answer": ""},
        {"image": "VizWiz_test_00000001.jpg", "answer": "red car"},
    ]


def test_answers_to_another_split_are_refused(val):
    questions = BENCHMARK.load_questions(val, "llava15")
    answers = [Prediction(n, "Another question?" + SUFFIX, "yes") for n in range(3)]
    with pytest.raises(UserError, match="3 of 3 answers have a prompt without the question"):
        BENCHMARK.score(questions, answers, "llava15")


def test_a_wrong_file_is_named(tmp_path):
    (tmp_path / "val.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"val.json, line 1: no key 'image'"):
        BENCHMARK.load_questions(tmp_path / "val.json", "llava15")
