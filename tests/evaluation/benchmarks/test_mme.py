import json
import random
from pathlib import Path

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.mme import BENCHMARK, PARSERS, fold_prompt
from prism_tune.schema import Prediction

CASES = json.loads((Path(__file__).parent / "cases/mme_parse.json").read_text())
SUFFIX = "\nAnswer the question using a single word or phrase."


def write_release(root):
    """Two categories in either layout: landmark with subfolders, OCR without."""
    (root / "landmark/questions_answers_YN").mkdir(parents=True)
    (root / "landmark/images").mkdir()
    (root / "OCR").mkdir()
    for name in ("a", "b"):
        (root / f"landmark/images/{name}.jpg").touch()
        (root / f"landmark/questions_answers_YN/{name}.txt").write_text(
            f"Is this {name}?  Please answer yes or no.\tYes\n"
            f"Is this not {name} Please answer yes or no.\tNo\n"
        )
    (root / "OCR/0001.png").touch()
    (root / "OCR/0001.txt").write_text(
        'Is it "x"? Please answer yes or no.\tYes\nIs it y? Please answer yes or no.\tNo'
    )
    return root


@pytest.fixture
def questions(tmp_path):
    return BENCHMARK.load_questions(write_release(tmp_path / "release"), "llava15")


def answer_right(questions):
    return [Prediction(q.question_id, q.text, q.reference.capitalize()) for q in questions]


@pytest.mark.parametrize(("text", "llava15", "lmms_eval"), CASES)
def test_answers_are_parsed_as_the_official_scripts_do(text, llava15, lmms_eval):
    assert PARSERS["llava15"](text) == llava15
    assert PARSERS["lmms_eval"](text) == lmms_eval


def test_both_layouts_are_read(questions):
    assert [q.question_id for q in questions] == [
        "landmark/images/a.jpg", "landmark/images/a.jpg",
        "landmark/images/b.jpg", "landmark/images/b.jpg",
        "OCR/0001.png", "OCR/0001.png",
    ]  # fmt: skip
    assert questions[4].text == 'Is it "x"?' + SUFFIX
    assert questions[4].images == ("OCR/0001.png",)
    assert questions[4].reference == "yes"


@pytest.mark.parametrize(
    "prompt",
    ["Is it?  Please answer yes or no.", "Is it? Please answer yes or no.", "Is it?" + SUFFIX,
     "Is it? " + SUFFIX, "Is it" + SUFFIX, " Is  it?\n"],
)  # fmt: skip
def test_prompts_meet_whatever_their_spacing_suffix_and_question_mark(prompt):
    assert fold_prompt(prompt) == "Is it"


def test_all_right_is_the_maximum_and_order_does_not_matter(questions):
    predictions = answer_right(questions)
    result = BENCHMARK.score(questions, predictions, "llava15")
    assert result.metrics == {"perception": 400, "landmark": 200, "OCR": 200}  # no cognition asked
    shuffled = random.Random(0).sample(predictions, len(predictions))
    reordered = random.Random(1).sample(questions, len(questions))
    assert dict(BENCHMARK.score(reordered, shuffled, "llava15").metrics) == dict(result.metrics)


def test_accuracy_plus_asks_for_both_questions_of_an_image(questions):
    predictions = answer_right(questions)
    predictions[1] = Prediction("landmark/images/a.jpg", questions[1].text, "Perhaps")
    result = BENCHMARK.score(questions, predictions, "llava15")
    assert result.metrics["landmark"] == 75 + 50
    assert result.metrics["perception"] == 325
    assert sum(result.per_question.values()) == 5


def test_garbage_and_missing_answers_give_zero(questions):
    garbage = [Prediction(q.question_id, q.text, "%$\t\n") for q in questions[:3]]
    result = BENCHMARK.score(questions, garbage, "llava15")
    assert result.metrics["perception"] == 0
    assert result.num_missing == 3


def test_the_same_id_with_another_prompt_is_unknown(questions):
    predictions = [*answer_right(questions), Prediction("OCR/0001.png", "Is it z?", "Yes")]
    result = BENCHMARK.score(questions, predictions, "llava15")
    assert "1 unknown question id(s), left out: OCR/0001: Is it z" in result.notes
    assert result.metrics["OCR"] == 200


def test_the_submission_re_reads_as_the_official_script_reads_it(questions, tmp_path):
    predictions = answer_right(questions)
    predictions[0] = Prediction("landmark/images/a.jpg", questions[0].text, "Yes,\tit\nis")
    shuffled = random.Random(0).sample(predictions, len(predictions))
    folder = BENCHMARK.write_submission(questions, shuffled, tmp_path)
    lines = (folder / "landmark.txt").read_text().splitlines()
    assert lines == [
        "a.txt\tIs this a?  Please answer yes or no.\tYes\tYes, it is",
        "a.txt\tIs this not a Please answer yes or no.\tNo\tNo",
        "b.txt\tIs this b?  Please answer yes or no.\tYes\tYes",
        "b.txt\tIs this not b Please answer yes or no.\tNo\tNo",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["OCR.txt", "landmark.txt"]


def test_the_part_that_is_missing_is_named(questions):
    notes = BENCHMARK.score(questions, answer_right(questions), "llava15").notes
    assert notes[0] == "6 questions; the whole benchmark has 2,374"
    assert notes[1].startswith("no questions of existence, count")


def test_wrong_folders_and_lines_are_named(tmp_path):
    with pytest.raises(UserError, match="none of MME's category folders"):
        BENCHMARK.load_questions(tmp_path, "llava15")
    (tmp_path / "color").mkdir()
    with pytest.raises(UserError, match="category folders, but no"):
        BENCHMARK.load_questions(tmp_path, "llava15")
    (tmp_path / "color/1.txt").write_text("Is it red? Yes\n")
    with pytest.raises(UserError, match=r"1.txt, line 1: expected a question, a tab"):
        BENCHMARK.load_questions(tmp_path, "llava15")
    (tmp_path / "color/1.txt").write_text("Is it red?\tMaybe\n")
    with pytest.raises(UserError, match=r"1.txt, line 1: expected yes or no, found 'Maybe'"):
        BENCHMARK.load_questions(tmp_path, "llava15")
