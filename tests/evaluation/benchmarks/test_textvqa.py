import json

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.textvqa import BENCHMARK, find_question
from prism_tune.schema import Prediction

SUFFIX = "\nAnswer the question using a single word or phrase."


def write(folder, *records):
    listed = [
        {"image_id": i, "question": q, "answers": a, "question_id": 34602 + n}
        for n, (i, q, a) in enumerate(records)
    ]
    path = folder / "TextVQA_0.5.1_val.json"
    path.write_text(json.dumps({"data": listed}))
    return path


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        (f"What Brand?\nReference OCR token: a, b{SUFFIX}", "what brand?"),
        (f"Reference OCR token: a, b\nWhat Brand?{SUFFIX}", "what brand?"),
        (f"What Brand?{SUFFIX}", "what brand?"),
        ("OCR tokens: a, b. Question: What\nBrand? Short answer:", "what\nbrand?"),
        ("OCR tokens: a, b. What?", None),
        ("What Brand?", None),
        (f"What\nBrand?\nReference OCR token: a{SUFFIX}", None),
    ],
)
def test_the_question_is_taken_out_of_the_prompt_as_the_official_script_does(prompt, question):
    assert find_question(prompt) == question


def test_prompts(tmp_path):
    path = write(tmp_path, ("f1", "what Brand?", ["x"] * 10))
    assert BENCHMARK.load_questions(path, "llava15")[0].text == "what Brand?" + SUFFIX
    assert BENCHMARK.load_questions(path, "lmms_eval")[0].text == "What brand?" + SUFFIX
    text = f"what Brand?\nReference OCR token: DAKOTA, 5{SUFFIX}"
    line = {"question_id": "f1", "image": "f1.jpg", "text": text, "category": "default"}
    (tmp_path / "llava_textvqa_val_v051_ocr.jsonl").write_text(json.dumps(line))
    (question,) = BENCHMARK.load_questions(tmp_path, "llava15")
    assert (question.text, question.images, question.reference) == (text, ("f1.jpg",), ["x"] * 10)


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("Dog", ["dog"] * 10, 100),
        ("dog", ["Dog."] * 10, 100),
        ("two", ["2"] * 3 + ["x"] * 7, 90),
        ("the cup", ["cup"] * 2 + ["x"] * 8, 60),
        ("cup", ["a cup"] + ["x"] * 9, 30),
        ("cups", ["cup"] * 10, 0),
        ("women's shoes", ["women's shoes"] * 10, 100),
    ],
)
def test_both_sides_are_normalised(tmp_path, answer, references, expected):
    (question,) = BENCHMARK.load_questions(write(tmp_path, ("f", "Q?", references)), "llava15")
    given = [Prediction("f", "Q?\nReference OCR token: a" + SUFFIX, answer)]
    for profile in ("llava15", "lmms_eval"):
        result = BENCHMARK.score([question], given, profile)
        assert result.metrics["accuracy"] == pytest.approx(expected)


def test_an_image_with_several_questions_and_equal_ones(tmp_path):
    """Of equal questions the last annotation counts for both, and every answer line is scored."""
    path = write(
        tmp_path, ("f", "One?", ["a1"] * 10), ("f", "Two?", ["b2"] * 10), ("f", "one?", ["c3"] * 10)
    )
    questions = BENCHMARK.load_questions(path, "llava15")
    answers = [
        Prediction("f", "Two?" + SUFFIX, "b2"),
        Prediction("f", "One?" + SUFFIX, "c3"),
        Prediction("f", "One?" + SUFFIX, "a1"),
    ]
    result = BENCHMARK.score(questions, answers, "llava15")
    assert result.per_question == {"f: one?": 1, "f: two?": 1, "f: one? (2)": 0}
    assert "asked without OCR tokens" in " ".join(result.notes)
    assert result.provenance["ocr_tokens"] == "without"


def test_official_question_ids_and_the_upload(tmp_path):
    path = write(tmp_path, ("f", "One?", ["a1"] * 10), ("g", "Two?", ["b2"] * 10))
    questions = BENCHMARK.load_questions(path, "llava15")
    result = BENCHMARK.score(questions, [Prediction(34603, "", "B2.")], "llava15")
    assert result.per_question == {"f: one?": 0, "g: two?": 1}
    BENCHMARK.write_submission(questions, [Prediction(34603, "", "The B2.")], tmp_path)
    assert json.loads((tmp_path / "textvqa_upload.json").read_text()) == [
        {"question_id": 34602, "answer": ""},
        {"question_id": 34603, "answer": "b2"},
    ]


def test_what_cannot_be_scored_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data 0: answers: expected 10, found 3"):
        BENCHMARK.load_questions(write(tmp_path, ("f", "Q?", ["x"] * 3)), "llava15")
    path = write(tmp_path, ("f", "One?", ["x"] * 10), ("f", "Two?", ["x"] * 10))
    questions = BENCHMARK.load_questions(path, "llava15")
    with pytest.raises(UserError, match=r"answer f: no question to be found in its prompt ''"):
        BENCHMARK.score(questions, [Prediction("f", "", "x")], "llava15")
