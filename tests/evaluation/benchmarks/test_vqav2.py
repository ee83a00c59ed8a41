import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.evaluation.benchmarks.vqa_text import normalize_m4c, normalize_vizwiz
from prism_tune.evaluation.benchmarks.vqav2 import BENCHMARK
from prism_tune.schema import Prediction

SUFFIX = "\nAnswer the question using a single word or phrase."


def annotate(references, *, ids=True, question_id=262148000, kind="other"):
    answers = [
        {"answer": text, "answer_confidence": "yes", **({"answer_id": n + 1} if ids else {})}
        for n, text in enumerate(references)
    ]
    return {
        "question_id": question_id, "image_id": 262148, "question_type": "what is the",
        "answer_type": kind, "answers": answers,
    }  # fmt: skip


def write(folder, *annotations):
    path = folder / "v2_mscoco_val2014_annotations.json"
    path.write_text(json.dumps({"annotations": annotations}))
    return path


@pytest.mark.parametrize(
    ("answer", "references", "official", "upload", "lmms_eval"),
    [
        ("Unanswerable", ["unanswerable"] * 10, 0, 100, 100),
        ("dog", ["Dog"] * 10, 0, 0, 100),
        ("Ten", ["10"] * 3 + ["ten"] * 7, 100, 100, 100),
        ("Yes", ["yes"] * 9 + ["no"], 100, 100, 100),
        ("a dog", ["dog", "the dog", *["cat"] * 8], 60, 60, 60),
        (" yes\n", ["yes"] * 10, 100, 100, 100),
        ("yes", ["yes", *["no"] * 9], 30, 30, 30),
        ("1,000", ["1000"] * 9 + ["x"], 100, 100, 100),
    ],
)
def test_credits(tmp_path, answer, references, official, upload, lmms_eval):
    questions = BENCHMARK.load_questions(write(tmp_path, annotate(references)), "llava15")
    given = [Prediction(262148000, "", answer)]
    metrics = BENCHMARK.score(questions, given, "llava15").metrics
    assert metrics["accuracy"] == pytest.approx(official)
    assert metrics["accuracy_upload"] == pytest.approx(upload)
    theirs = BENCHMARK.score(questions, given, "lmms_eval").metrics["accuracy"]
    assert theirs == pytest.approx(lmms_eval)


def official_credit(answer, answers):
    """`vqaEval.py`, one question written out: dicts in, the accuracy before rounding out."""
    flat = lambda text: text.replace("\n", " ").replace("\t", " ").strip()  # noqa: E731
    answers = [{**entry, "answer": flat(entry["answer"])} for entry in answers]
    answer = flat(answer)
    if len({entry["answer"] for entry in answers}) > 1:
        answers = [{**entry, "answer": normalize_vizwiz(entry["answer"])} for entry in answers]
        answer = normalize_vizwiz(answer)
    accuracies = []
    for own in answers:
        others = [entry for entry in answers if entry != own]
        matching = [entry for entry in others if entry["answer"] == answer]
        accuracies.append(min(1, float(len(matching)) / 3))
    return float(sum(accuracies)) / len(accuracies)


TEXTS = st.sampled_from(["yes", "Yes", " yes\n", "a yes", "no", "two", "2", "2.", "", "dog's"])


@given(
    st.lists(st.lists(TEXTS, min_size=1, max_size=11), min_size=1, max_size=4),
    st.lists(TEXTS, min_size=4, max_size=4),
    st.sampled_from([True, False, "same"]),
)
def test_credits_are_those_of_the_official_script_to_the_digit(references, given_texts, ids):
    listed = [annotate(texts, ids=ids, question_id=n) for n, texts in enumerate(references)]
    if ids == "same":
        for entry in listed:
            entry["answers"] = [{**answer, "answer_id": 1} for answer in entry["answers"]]
    with tempfile.TemporaryDirectory() as folder:
        questions = BENCHMARK.load_questions(write(Path(folder), *listed), "llava15")
    answers = [Prediction(n, "", text) for n, text in enumerate(given_texts[: len(listed)])]
    result = BENCHMARK.score(questions, answers, "llava15")
    expected = [official_credit(a.text, q["answers"]) for q, a in zip(listed, answers, strict=True)]
    assert list(result.per_question.values()) == expected
    uploaded = [
        official_credit(normalize_m4c(a.text), q["answers"])
        for q, a in zip(listed, answers, strict=True)
    ]
    assert result.metrics["accuracy_upload"] == sum(uploaded) / len(uploaded) * 100


def test_references_without_ids_vanish_with_their_equals(tmp_path):
    """The official script tells "others" by inequality: of 9 + 1, nine have one other each."""
    path = write(tmp_path, annotate(["yes"] * 9 + ["no"], ids=False))
    questions = BENCHMARK.load_questions(path, "llava15")
    result = BENCHMARK.score(questions, [Prediction(262148000, "", "yes")], "llava15")
    assert result.metrics["accuracy"] == pytest.approx(10)


def test_the_references_of_a_row_are_their_texts(tmp_path):
    """`prism-tune answers` shows them; confidences and ids only tell equal ones apart."""
    (question,) = BENCHMARK.load_questions(write(tmp_path, annotate(["yes", 2])), "llava15")
    assert question.reference == ["yes", "2"]


def test_questions_beside_annotations_types_and_a_missing_answer(tmp_path):
    path = write(tmp_path, annotate(["2"] * 10, kind="number"), annotate(["x"] * 10, question_id=7))
    asked = [{"question_id": i, "image_id": 262148, "question": "What?"} for i in (262148000, 7)]
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(
        json.dumps({"questions": asked})
    )
    for source in (path, tmp_path):
        questions = BENCHMARK.load_questions(source, "llava15")
        assert questions[0].text == "What?" + SUFFIX
        assert questions[0].images == ("COCO_val2014_000000262148.jpg",)
    result = BENCHMARK.score(questions, [Prediction(262148000, "What?" + SUFFIX, "2")], "llava15")
    assert result.metrics == {
        "accuracy": 50, "accuracy_upload": 50, "accuracy_number": 100, "accuracy_other": 0,
        "type_what_is_the": 50,
    }  # fmt: skip
    assert result.num_missing == 1


def test_the_upload_covers_every_question_of_the_split(tmp_path):
    lines = [
        {"question_id": n, "image": "COCO_test2015_1.jpg", "text": "What?" + SUFFIX} for n in (1, 2)
    ]
    path = tmp_path / "llava_vqav2_mscoco_test2015.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    questions = BENCHMARK.load_questions(path, "llava15")
    answers = [Prediction(2, "", "The Dog's ball?")]
    assert BENCHMARK.score(questions, answers, "llava15").metrics == {}
    upload = BENCHMARK.write_submission(questions, answers, tmp_path)
    assert json.loads(upload.read_text()) == [
        {"question_id": 1, "answer": ""},
        {"question_id": 2, "answer": "dog 's ball"},
    ]
