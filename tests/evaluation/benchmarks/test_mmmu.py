import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.mmmu import BENCHMARK
from prism_tune.evaluation.benchmarks.mmmu_answers import DOMAINS
from prism_tune.schema import Prediction

ANSWERS = {
    "validation_Math_1": {"question_type": "multiple-choice", "ground_truth": "B"},
    "validation_Math_2": {"question_type": "short-answer", "ground_truth": ["24/7", "3.429"]},
    "validation_Art_Theory_1": {"question_type": "multiple-choice", "ground_truth": "A"},
}
PARQUET = [
    ("validation_Math_1", "See <image 1>. Pick.", "['one', '<image 2>']", "B", "multiple-choice"),
    ("validation_Math_2", "Compute.", "[]", "['24/7', '3.429']", "open"),
]


@pytest.fixture
def annotations(tmp_path):
    (tmp_path / "answer_dict_val.json").write_text(json.dumps(ANSWERS))
    return tmp_path / "answer_dict_val.json"


@pytest.fixture
def parquet(tmp_path):
    names = ("id", "question", "options", "answer", "question_type")
    columns = dict(zip(names, zip(*PARQUET, strict=True), strict=True))
    pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), tmp_path / "v.parquet")
    return tmp_path / "v.parquet"


def write_outputs(folder, responses):
    for question_id, response in responses.items():
        subject = "_".join(question_id.split("_")[1:-1])
        path = folder / subject / "output.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        records = json.loads(path.read_text()) if path.exists() else []
        kind = ANSWERS[question_id]["question_type"]
        options = {"A": "one", "B": "two"} if kind == "multiple-choice" else {}
        records.append({
            "id": question_id, "question_type": kind, "response": response,
            "answer": ANSWERS[question_id]["ground_truth"],
            "all_choices": list(options), "index2ans": options,
        })  # fmt: skip
        path.write_text(json.dumps(records))
    return folder


def test_parsed_answers_are_compared_as_they_stand(annotations, tmp_path):
    path = tmp_path / "parsed.json"
    path.write_text(json.dumps({"validation_Math_1": "B", "validation_Math_2": "3.43",
                                "validation_Art_Theory_1": "(A)"}))  # fmt: skip
    questions = BENCHMARK.load_questions(annotations, "llava15")
    result = BENCHMARK.score(questions, BENCHMARK.read_predictions(path), "llava15")
    assert result.metrics == {
        "accuracy": 0.667, "accuracy_expected": 0.667, "Art and Design": 0, "Science": 1,
        "Art_Theory": 0, "Math": 1,
    }  # fmt: skip
    assert "options unknown: multiple-choice answers are compared as they stand" in result.notes
    assert result.provenance["scale"] == 1


def test_the_official_folder_is_parsed_with_its_options(annotations, tmp_path):
    folder = write_outputs(
        tmp_path / "out",
        {"validation_Math_1": "(B)", "validation_Math_2": "so 24/7.",
         "validation_Art_Theory_1": "I am not sure"},
    )  # fmt: skip
    questions = BENCHMARK.load_questions(annotations, "llava15")
    result = BENCHMARK.score(questions, BENCHMARK.read_predictions(folder), "llava15")
    assert result.metrics["Math"] == 1
    # One answer without a letter among two options: (1 + 1 + 1/2) / 3. The first draw of seed 42
    # among A and B is A, which is right.
    assert result.metrics["accuracy_expected"] == 0.833
    assert result.metrics["accuracy"] == 1
    assert list(result.metrics)[:2] == ["accuracy_expected", "accuracy"]
    assert result.per_question["validation_Art_Theory_1"] == 0.5
    assert (
        "1 answer(s) without a letter: `accuracy_expected` gives them 1 / options, `accuracy` the "
        "official script's draw (seed 42)"
    ) in result.notes


def test_the_order_of_files_and_answers_does_not_change_a_draw(annotations, tmp_path):
    responses = dict.fromkeys(("validation_Math_1", "validation_Art_Theory_1"), "unsure")
    folder = write_outputs(tmp_path / "out", responses)
    questions = BENCHMARK.load_questions(annotations, "llava15")
    answers = BENCHMARK.read_predictions(folder)
    result = BENCHMARK.score(questions, answers, "llava15")
    # Art_Theory goes first and draws A (right), Math draws A (wrong); the open one is missing.
    generator = random.Random(42)
    assert [generator.choice("AB") for _ in range(2)] == ["A", "A"]
    assert (result.metrics["Art_Theory"], result.metrics["Math"]) == (1, 0)
    assert result.metrics["accuracy"] == 0.333
    assert result.metrics["accuracy_expected"] == 0.333
    shuffled = random.Random(0).sample(questions, 3)
    again = BENCHMARK.score(shuffled, answers[::-1], "llava15")
    assert again.metrics == result.metrics
    assert again.per_question == result.per_question


def test_parquet_questions_are_prompted_in_both_profiles(parquet):
    choice, opened = BENCHMARK.load_questions(parquet, "llava15")
    assert choice.text == (
        "See <image 1>. Pick.\n(A) one\n(B) <image 2>\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert opened.text == "Compute.\nAnswer the question using a single word or phrase."
    assert choice.images == (f"parquet:{parquet.resolve()}#0#image_1",)
    assert opened.reference == ["24/7", "3.429"]
    choice, opened = BENCHMARK.load_questions(parquet, "lmms_eval")
    assert choice.text.startswith("See <image 1>. Pick.\nA. one\nB. <image 2>\n\nAnswer with")
    assert opened.text == "Compute.\n\nAnswer the question using a single word or phrase."
    assert [image.rsplit("#", 1)[1] for image in choice.images] == ["image_1", "image_2"]


def test_parquet_options_parse_jsonl_responses_and_all_right_is_one(parquet, tmp_path):
    questions = BENCHMARK.load_questions(parquet, "llava15")
    answers = [
        Prediction("validation_Math_2", "", "24/7"),
        Prediction("validation_Math_1", "", "(B) y"),
    ]
    result = BENCHMARK.score(questions, answers, "llava15")
    assert set(result.metrics.values()) == {1}
    garbage = [Prediction(q.question_id, "", "(A)") for q in questions]
    assert set(BENCHMARK.score(questions, garbage, "llava15").metrics.values()) == {0}


def test_missing_answers_are_wrong(annotations):
    questions = BENCHMARK.load_questions(annotations, "llava15")
    result = BENCHMARK.score(questions, [Prediction("validation_Math_1", "", "B")], "llava15")
    assert (result.metrics["accuracy"], result.num_missing) == (0.333, 2)


def test_the_thirty_subjects():
    assert sum(len(subjects.split()) for subjects in DOMAINS.values()) == 30


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no <Subject>/output.json"):
        BENCHMARK.read_predictions(tmp_path)
    (tmp_path / "a.json").write_text('{"validation_Math_1": [3]}')
    with pytest.raises(UserError, match=r"a.json, validation_Math_1: text: expected text"):
        BENCHMARK.read_predictions(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a.json, validation_Math_1: expected an object"):
        BENCHMARK.load_questions(tmp_path / "a.json", "llava15")
