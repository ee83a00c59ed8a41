import json
import random
from pathlib import Path

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.scienceqa import BENCHMARK, PARSERS
from prism_tune.schema import Prediction

CASES = json.loads((Path(__file__).parent / "cases/scienceqa_parse.json").read_text())
SUFFIX = "\nAnswer with the option's letter from the given choices directly."


def problem(question, choices, answer, hint="", image=None, subject="natural science"):
    return {
        "question": question, "choices": choices, "answer": answer, "hint": hint, "image": image,
        "subject": subject, "split": "test",
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    problems = {
        "11": problem("Which is warm?", ["ice", "fire"], 1, "Think.", "image.png"),
        "4": problem("Pick.", ["x", "y", "z"], 0),
        "9": problem("Which?", ["p", "q"], 0, image="image.png", subject="language science"),
        "1": problem("train", ["x", "y"], 0),
    }
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    splits = {"train": ["1"], "test": ["4", "11", "9"]}
    (tmp_path / "pid_splits.json").write_text(json.dumps(splits))
    return tmp_path


@pytest.mark.parametrize(("text", "llava15", "lmms_eval"), CASES)
def test_answers_are_parsed_as_the_official_scripts_do(text, llava15, lmms_eval):
    assert PARSERS["llava15"](text) == llava15
    assert PARSERS["lmms_eval"](text) == lmms_eval


def test_questions_are_llavas_in_the_order_of_the_split(folder):
    questions = BENCHMARK.load_questions(folder, "llava15")
    assert [q.question_id for q in questions] == ["4", "11", "9"]
    assert questions[1].text == "Context: Think.\nWhich is warm?\nA. ice\nB. fire" + SUFFIX
    assert questions[0].text == "Pick.\nA. x\nB. y\nC. z" + SUFFIX
    assert [q.images for q in questions] == [(), ("11/image.png",), ("9/image.png",)]
    assert [q.reference for q in questions] == ["A", "B", "A"]


def test_all_and_image_accuracy_with_a_missing_answer_wrong_in_both(folder):
    questions = BENCHMARK.load_questions(folder, "llava15")
    answers = [Prediction("4", "p", "A"), Prediction(11, "p", "The answer is B.")]
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics["accuracy"] == pytest.approx(200 / 3)
    assert result.metrics["accuracy_image"] == 50
    assert result.metrics["accuracy_natural_science"] == 100
    assert (result.num_missing, result.per_question) == (1, {"4": 1, "11": 1, "9": 0})


def test_a_letter_beyond_the_choices_is_wrong_and_a_failed_parse_is_counted(folder):
    questions = BENCHMARK.load_questions(folder, "llava15")
    texts = ["E", "B is it", "A"]
    answers = [Prediction(q.question_id, "", t) for q, t in zip(questions, texts, strict=True)]
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.metrics["accuracy"] == pytest.approx(100 / 3)
    assert result.notes == (
        "3 questions; the test split has 4,241",
        "1 answer(s) without a letter the parser knows, counted as wrong",
    )


@pytest.mark.parametrize("profile", ["llava15", "lmms_eval"])
def test_all_right_is_the_maximum_in_any_order(folder, profile):
    questions = BENCHMARK.load_questions(folder, profile)
    answers = [Prediction(q.question_id, q.text, q.reference) for q in questions]
    result = BENCHMARK.score(questions, random.Random(0).sample(answers, 3), profile)
    assert set(result.metrics.values()) == {100}


def test_missing_files_and_keys_are_named(folder):
    (folder / "pid_splits.json").write_text('{"test": ["4", "77"]}')
    with pytest.raises(UserError, match=r"problems.json: no key '77'"):
        BENCHMARK.load_questions(folder, "llava15")
    (folder / "pid_splits.json").unlink()
    with pytest.raises(UserError, match=r"pid_splits.json missing"):
        BENCHMARK.load_questions(folder, "llava15")


@pytest.mark.parametrize(
    ("choices", "answer", "message"),
    [
        (list("uvwxyz"), 0, "6 choices; expected at most 5"),
        (["x", "y"], 2, "answer: expected the index of a choice, found 2"),
    ],
)
def test_no_choice_is_left_out(folder, choices, answer, message):
    (folder / "problems.json").write_text(json.dumps({"4": problem("Pick.", choices, answer)}))
    (folder / "pid_splits.json").write_text('{"test": ["4"]}')
    with pytest.raises(UserError, match=f"problem 4: {message}"):
        BENCHMARK.load_questions(folder, "llava15")
