import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.evaluation.benchmarks.gqa import BENCHMARK, RULES
from prism_tune.schema import Prediction

SUFFIX = "\nAnswer the question using a single word or phrase."


OPERATIONS = {
    "select": {"operation": "select", "argument": "cup (1)", "dependencies": []},
    "exist": {"operation": "exist", "argument": "?", "dependencies": [0]},
    "name": {"operation": "query", "argument": "name", "dependencies": [0]},
    "color": {"operation": "query", "argument": "color", "dependencies": [0]},
}
STEPS = {
    "verify": [OPERATIONS["select"], OPERATIONS["exist"]],
    "query": [OPERATIONS["select"], OPERATIONS["name"]],
    "compare": [OPERATIONS["select"], OPERATIONS["select"], OPERATIONS["color"]],
}


def entry(structural, answer, *, balanced=True, semantic="rel"):
    types = {"structural": structural, "semantic": semantic, "detailed": "x"}
    return {
        "question": "Is it?", "imageId": "n1", "answer": answer, "isBalanced": balanced,
        "types": types, "semantic": STEPS[structural],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reference", "llava15", "lmms_eval"),
    [
        ("Yes", "yes", True, True),
        ("yes..", "yes", True, True),
        ("yes. ", "yes", False, True),
        ("T-shirt", "t-shirt", True, True),
        ("t shirt", "t-shirt", False, False),
        ("tshirt!", "t-shirt", False, True),
        ("a cup", "cup", False, False),
    ],
)
def test_rules(text, reference, llava15, lmms_eval):
    assert RULES["llava15"](text, reference) is llava15
    assert RULES["lmms_eval"](text, reference) is lmms_eval


def test_metrics_are_over_the_balanced_questions(tmp_path):
    entries = {
        "1": entry("verify", "yes"), "2": entry("query", "cup", semantic="attr"),
        "3": entry("compare", "left"), "4": entry("query", "dog", balanced=False),
    }  # fmt: skip
    (tmp_path / "testdev_balanced_questions.json").write_text(json.dumps(entries))
    questions = BENCHMARK.load_questions(tmp_path, "llava15")
    assert questions[0].text == "Is it?" + SUFFIX
    assert questions[0].images == ("n1.jpg",)
    answers = [
        Prediction("1", "", "Yes."),
        Prediction("2", "", "Cup"),
        Prediction("3", "", "right"),
    ]
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics == {
        "accuracy": pytest.approx(200 / 3), "accuracy_binary": 50, "accuracy_open": 100,
        "structural_compare": 0, "structural_query": 100, "structural_verify": 100,
        "semantic_attr": 100, "semantic_rel": 50,
        "steps_1": 100, "steps_3": 0, "words_2": pytest.approx(200 / 3),
    }  # fmt: skip
    assert "1 question(s) are not balanced and do not count" in result.notes


def test_llavas_questions_are_asked_and_have_no_score(tmp_path):
    line = {"question_id": "201", "image": "n1.jpg", "text": "Is it?" + SUFFIX, "category": "d"}
    (tmp_path / "q.jsonl").write_text(json.dumps(line))
    questions = BENCHMARK.load_questions(tmp_path / "q.jsonl", "llava15")
    assert (questions[0].question_id, questions[0].text) == ("201", "Is it?" + SUFFIX)
    assert BENCHMARK.score(questions, [Prediction(201, "", "yes")], "llava15").metrics == {}


def test_the_converted_predictions_and_the_hubs_two_tables(tmp_path):
    row = {"id": "201", "question": "Is it?", "answer": "yes", "imageId": "n1", "isBalanced": True}
    row["semantic"] = STEPS["verify"]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "testdev-instructions.parquet")
    images = tmp_path / "testdev-images.parquet"
    pq.write_table(pa.Table.from_pylist([{"id": "n1", "image": {"bytes": b"x"}}]), images)
    questions = BENCHMARK.load_questions(tmp_path, "llava15")
    assert questions[0].images == (f"parquet:{images.resolve()}#0#image",)
    (tmp_path / "p.json").write_text('[{"questionId": "201", "prediction": "yes"}]')
    answers = BENCHMARK.read_predictions(tmp_path / "p.json")
    assert BENCHMARK.score(questions, answers, "llava15").metrics == {
        "accuracy": 100, "steps_1": 100, "words_2": 100,
    }  # fmt: skip
