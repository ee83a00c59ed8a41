import json

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.seed_bench import BENCHMARK, RULES
from prism_tune.schema import Prediction


def record(question_id, kind="image", answer="B", question_type=1):
    return {
        "question_id": question_id, "question": "How many?", "choice_a": "One", "choice_b": "Two",
        "choice_c": 3, "choice_d": "Four", "answer": answer, "data_type": kind, "data_id": "1_2",
        "question_type_id": question_type,
    }  # fmt: skip


def write(folder, *records):
    names = {"Instances Counting": 1, "Action Recognition": 10}
    path = folder / "SEED-Bench.json"
    path.write_text(json.dumps({"questions": records, "question_type": names}))
    return path


@pytest.mark.parametrize(
    ("text", "llava15", "lmms_eval"),
    [("B", True, True), ("b", False, True), ("B.", False, True), (" B", False, True),
     ("Because", False, True), ("A", False, False), ("", False, False)],
)  # fmt: skip
def test_rules(text, llava15, lmms_eval):
    assert RULES["llava15"](text, "B") is llava15
    assert RULES["lmms_eval"](text, "B") is lmms_eval


def test_prompts_images_and_metrics(tmp_path):
    path = write(tmp_path, record("11"), record("12", answer="c"), record("v3", "video", "A", 10))
    questions = BENCHMARK.load_questions(path, "llava15")
    assert questions[0].text == (
        "How many?\nA. One\nB. Two\nC. 3\nD. Four\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert [q.images[0] for q in questions] == [
        "SEED-Bench-image/1_2", "SEED-Bench-image/1_2", "SEED-Bench-video-image/10_v3.png",
    ]  # fmt: skip
    answers = [Prediction(11, "", "B"), Prediction(12, "", "B"), Prediction("v3", "", "A")]
    assert BENCHMARK.score(questions, answers, "llava15").metrics == {
        "accuracy": pytest.approx(200 / 3), "accuracy_image": 50, "accuracy_video": 100,
        "Instances Counting": 50, "Action Recognition": 100,
    }  # fmt: skip


def test_without_frames_there_is_no_accuracy_over_all(tmp_path):
    questions = BENCHMARK.load_questions(write(tmp_path, record(1), record(2, "video")), "llava15")
    result = BENCHMARK.score(questions, [Prediction(1, "", "B")], "llava15")
    assert result.metrics["accuracy_image"] == 100
    assert not {"accuracy", "accuracy_video"} & result.metrics.keys()
    assert any("image questions only" in note for note in result.notes)


def test_uploads_and_bad_answers(tmp_path):
    questions = BENCHMARK.load_questions(write(tmp_path, record("11"), record("12")), "llava15")
    path = BENCHMARK.write_submission(questions, [Prediction(11, "", "B")], tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"question_id": "11", "prediction": "B"},
        {"question_id": "12", "prediction": ""},
    ]
    read = BENCHMARK.read_predictions(path)
    assert BENCHMARK.score(questions, read, "llava15").metrics["accuracy"] == 50
    with pytest.raises(UserError, match=r"question 0: answer: expected the letter of an option"):
        BENCHMARK.load_questions(write(tmp_path, record("11", answer="E")), "llava15")
