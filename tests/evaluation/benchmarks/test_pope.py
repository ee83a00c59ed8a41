import json
import random
from pathlib import Path

import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmarks.pope import BENCHMARK, PARSERS
from prism_tune.schema import Prediction

CASES = json.loads((Path(__file__).parent / "cases/pope_parse.json").read_text())
LABELS = {"random": "ynyn", "popular": "yynn", "adversarial": "nnyy"}


def write_annotations(folder, labels=LABELS):
    folder.mkdir()
    for split, letters in labels.items():
        rows = [
            {
                "question_id": n,
                "image": f"COCO_val2014_{n:012d}.jpg",
                "text": f"Is there a {split} {n} in the image?",
                "label": {"y": "yes", "n": "no"}[letter],
            }
            for n, letter in enumerate(letters, 1)
        ]
        path = folder / f"coco_pope_{split}.json"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def questions(tmp_path):
    return BENCHMARK.load_questions(write_annotations(tmp_path / "coco"), "llava15")


def answer_all(questions, texts):
    pairs = zip(questions, texts, strict=True)
    return [Prediction(q.question_id, q.text, text) for q, text in pairs]


@pytest.mark.parametrize(("text", "llava15", "lmms_eval"), CASES)
def test_answers_are_parsed_as_the_official_scripts_do(text, llava15, lmms_eval):
    assert PARSERS["llava15"](text) == llava15
    assert PARSERS["lmms_eval"](text) == lmms_eval


@pytest.mark.parametrize(("profile", "asked"), [("llava15", " Is it? "), ("lmms_eval", "Is it?")])
def test_lmms_eval_strips_the_question(tmp_path, profile, asked):
    row = {"question_id": 1, "image": "1.jpg", "text": " Is it? ", "label": "yes"}
    path = tmp_path / "coco_pope_random.json"
    path.write_text(json.dumps(row))
    suffix = "\nAnswer the question using a single word or phrase."
    assert [q.text for q in BENCHMARK.load_questions(path, profile)] == [asked + suffix]


def test_questions_carry_llavas_global_ids_and_prompt(questions):
    assert [q.question_id for q in questions if q.category == "random"][:2] == [10000001, 10000002]
    assert next(q.question_id for q in questions if q.category == "popular") == 20000001
    assert [q.question_id for q in questions if q.category == "adversarial"][-1] == 4
    assert questions[0].text == (
        "Is there a random 1 in the image?\nAnswer the question using a single word or phrase."
    )
    assert questions[0].images == ("COCO_val2014_000000000001.jpg",)


def test_the_two_profiles_differ_as_documented(questions):
    texts = ["Yes", "No.", "Yes, there is", "no"]
    predictions = [
        Prediction(q.question_id, q.text, text)
        for q, text in zip(questions[:4], texts, strict=True)
    ]
    ours = BENCHMARK.score(questions[:4], predictions, "llava15").metrics
    theirs = BENCHMARK.score(questions[:4], predictions, "lmms_eval").metrics
    assert (ours["accuracy_random"], ours["f1_random"], ours["yes_ratio_random"]) == (100, 100, 50)
    assert (theirs["accuracy_random"], theirs["f1_random"]) == (50, 100)
    assert theirs["yes_ratio_random"] == 50


def test_metrics_against_hand_computed_values(questions):
    # random: y n y n answered y y n n -> TP 1, FP 1, FN 1, TN 1
    texts = ["yes", "yes", "no", "no", "yes", "yes", "no", "no", "yes", "no", "yes", "yes"]
    result = BENCHMARK.score(questions, answer_all(questions, texts), "llava15")
    metrics = result.metrics
    assert metrics["f1_random"] == 50
    assert metrics["f1_popular"] == 100
    assert metrics["precision_adversarial"] == pytest.approx(200 / 3)
    assert metrics["recall_adversarial"] == 100
    assert metrics["f1_adversarial"] == pytest.approx(80)
    assert metrics["accuracy_adversarial"] == 75
    assert metrics["yes_ratio_adversarial"] == 75
    assert metrics["f1"] == pytest.approx((50 + 100 + 80) / 3)
    assert next(iter(metrics)) == "f1"
    assert result.per_question["10000002"] == 0
    assert result.per_question["10000004"] == 1


def test_missing_answers_lower_accuracy_and_recall_and_are_named(questions):
    result = BENCHMARK.score(questions, answer_all(questions[1:], ["no"] * 11), "llava15")
    assert result.num_missing == 1
    assert result.metrics["accuracy_random"] == 50
    assert result.metrics["recall_random"] == 0
    assert result.per_question["10000001"] == 0
    assert "1 question(s) without an answer, counted as wrong: 10000001" in result.notes


def test_nothing_answered_yes_gives_zero_and_a_note(questions):
    result = BENCHMARK.score(questions, answer_all(questions, ["no"] * 12), "llava15")
    assert result.metrics["f1"] == 0
    assert result.metrics["accuracy"] == 50
    assert "random: nothing was answered yes; precision and F1 are set to 0" in result.notes


@pytest.mark.parametrize("profile", ["llava15", "lmms_eval"])
def test_all_right_gives_the_maximum_in_any_order(questions, profile):
    predictions = answer_all(questions, [q.reference for q in questions])
    shuffled = random.Random(0).sample(predictions, len(predictions))
    reordered = random.Random(1).sample(questions, len(questions))
    first = BENCHMARK.score(questions, predictions, profile)
    second = BENCHMARK.score(reordered, shuffled, profile)
    assert first.metrics["f1"] == first.metrics["accuracy"] == 100
    assert second.metrics == first.metrics
    assert second.per_question == first.per_question


def test_the_version_is_named(tmp_path):
    pinned = dict.fromkeys(LABELS, "yn" * 1500) | {"random": "yn" * 1455}
    folder = write_annotations(tmp_path / "pinned", pinned)
    questions = BENCHMARK.load_questions(folder, "llava15")
    result = BENCHMARK.score(questions, answer_all(questions, ["yes"] * 8910), "llava15")
    assert result.provenance["data_version"] == "e3e39262"
    assert result.notes[0].startswith("8,910 questions")
    folder = write_annotations(tmp_path / "head", dict.fromkeys(LABELS, "yn" * 1500))
    questions = BENCHMARK.load_questions(folder, "llava15")
    result = BENCHMARK.score(questions, answer_all(questions, ["yes"] * 9000), "llava15")
    assert result.provenance["data_version"] == "HEAD (9,000 rows)"
    assert "not comparable" in result.notes[0]


def test_answers_to_another_version_are_refused(questions):
    swapped = [Prediction(q.question_id, questions[-1].text, "yes") for q in questions]
    with pytest.raises(UserError, match=r"11 answer\(s\) belong to other questions than their ids"):
        BENCHMARK.score(questions, swapped, "llava15")


def test_a_missing_split_and_a_bad_label_are_named(tmp_path):
    folder = write_annotations(tmp_path / "coco")
    (folder / "coco_pope_random.json").write_text(
        '{"question_id": 1, "image": "i", "text": "t", "label": "maybe"}\n'
    )
    with pytest.raises(UserError, match=r"random.json, line 1: label: expected yes or no"):
        BENCHMARK.load_questions(folder, "llava15")
    (folder / "coco_pope_random.json").unlink()
    with pytest.raises(UserError, match=r"coco_pope_random.json missing"):
        BENCHMARK.load_questions(folder, "llava15")


def test_a_file_named_after_two_splits_is_refused(tmp_path):
    path = tmp_path / "coco_pope_random_popular.json"
    path.write_text('{"question_id": 1, "image": "a.jpg", "text": "Is there?", "label": "yes"}')
    with pytest.raises(UserError, match=r"of which split are its questions, random or popular\?"):
        BENCHMARK.load_questions(path, "llava15")
