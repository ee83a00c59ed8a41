"""Questions as they are asked: the controls change what the model is shown, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import open_questions
from prism_tune.evaluation.questions import apply_control, check_names, load_questions
from prism_tune.evaluation.score import find_benchmark
from prism_tune.schema import Question

QUESTIONS = [
    Question(1, "what shape?", ("a.png",), "circle"),
    Question(2, "what color?", ("a.png",), "red"),
    Question(3, "what shape?", ("b.png",), "square"),
    Question(4, "is 2 even?", (), "yes"),
    Question(5, "what shape?", ("c.png",), "circle"),
]
HASHES = {name: f"content of {name}" for name in (*(f"{n}.png" for n in "abc01234567"), *"abcdef")}


def test_blind_takes_every_image_away_and_keeps_the_rest():
    blind = apply_control("blind", QUESTIONS, HASHES, seed=0)
    assert blind == [replace(question, images=()) for question in QUESTIONS]


def test_shuffled_gives_every_question_another_questions_image():
    shuffled = apply_control("shuffled", QUESTIONS, HASHES, seed=0)
    for before, after in zip(QUESTIONS, shuffled, strict=True):
        assert after == replace(before, images=after.images)
        assert (after.images != before.images) == bool(before.images)
    assert {q.images for q in shuffled} == {q.images for q in QUESTIONS}


@given(
    images=st.lists(st.sampled_from("abcdef"), min_size=2).filter(
        lambda names: len(set(names)) > 1
    ),
    seed=st.integers(0, 5),
)
def test_no_image_stays_where_it_was(images, seed):
    questions = [Question(i, "?", (name,), "") for i, name in enumerate(images)]
    shuffled = apply_control("shuffled", questions, HASHES, seed=seed)
    assert all(q.images != s.images for q, s in zip(questions, shuffled, strict=True))
    assert shuffled == apply_control("shuffled", questions, HASHES, seed=seed)


def test_seeds_exchange_differently():
    questions = [Question(i, "?", (f"{i}.png",), "") for i in range(8)]
    outcomes = {
        tuple(q.images for q in apply_control("shuffled", questions, HASHES, seed=s))
        for s in (0, 1, 2)
    }
    assert len(outcomes) == 3


def test_one_image_cannot_be_exchanged():
    with pytest.raises(UserError, match=r"at least two images; all are on a\.png"):
        apply_control("shuffled", QUESTIONS[:2], HASHES, seed=0)


def test_files_that_hold_the_same_picture_are_one_image():
    """In the hub's parquet each row has its own copy of the picture that several rows ask about."""
    questions = [Question(n, "?", (f"row {n}",), "") for n in range(12)]
    hashes = {f"row {n}": f"picture {n // 6}" for n in range(12)}
    for seed in range(5):
        shuffled = apply_control("shuffled", questions, hashes, seed=seed)
        seen = [hashes[question.images[0]] for question in shuffled]
        assert seen == ["picture 1"] * 6 + ["picture 0"] * 6
    with pytest.raises(UserError, match="at least two images"):
        apply_control("shuffled", questions[:6], hashes, seed=0)


def test_shuffling_without_any_image_changes_nothing():
    assert apply_control("shuffled", [QUESTIONS[3]], HASHES, seed=0) == [QUESTIONS[3]]


@pytest.mark.parametrize(
    "image",
    ["parquet:/any/file#0#col", "parquet:../other.parquet#0#image", "parquet:x", "parquet:a#b"],
)
def test_a_questions_text_leads_into_no_other_parquet_file(tmp_path, image):
    path = tmp_path / "questions.jsonl"
    row = {"question_id": 7, "question": "What?", "answer": "a", "image": image}
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=r"question 7: its image .* is not in these annotations"):
        open_questions(find_benchmark("mine", "exact"), path, "llava15")


def load_one(tmp_path, **row):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"question_id": 7, "answer": "a", **row}))
    (question,) = open_questions(find_benchmark("mine", "exact", instruction=""), path, "llava15")
    return question


@pytest.mark.parametrize(
    ("text", "images"),
    [("<image>\nWhich shape?", ["a.png"]), ("<image>Which shape?", ["a.png"]),
     ("Which shape?\n<image>", ["a.png"]), ("<image>\n<image>\nWhich shape?", ["a.png", "b.png"])],
)  # fmt: skip
def test_llavas_placeholders_are_the_images_that_a_question_has_anyway(tmp_path, text, images):
    question = load_one(tmp_path, question=text, image=images)
    assert (question.text, question.metadata["question"]) == ("Which shape?", "Which shape?")


@pytest.mark.parametrize("image", [[], ["a.png", "b.png"]])
def test_placeholders_of_other_images_are_named(tmp_path, image):
    with pytest.raises(UserError, match=r"question 7: 1 <image> placeholder\(s\) in its text, and"):
        load_one(tmp_path, question="<image>\nWhich shape?", image=image)


def test_any_other_placeholder_is_a_word_and_that_is_said(tmp_path, caplog):
    question = load_one(tmp_path, question="What does <image> mean?", image="a.png")
    assert question.text == "What does <image> mean?"
    assert "1 question(s) with <image> in a line, read as text: 7" in caplog.text


def read_config(name, **data):
    return Config.model_validate(
        {
            "name": "x", "model": {"path": "m"}, "data": {"records": "unused.json"},
            "evaluation": {"benchmarks": [name], "data": {name: data}},
        }
    )  # fmt: skip


def test_a_limit_keeps_mmbenchs_circles_whole(tmp_path):
    """The rows of a question with its options rotated stand far behind it."""
    rows = [(n + 1_000_000 * turn, "x\ty") for turn in (0, 1) for n in range(3)]
    lines = [f"{index}\tWhich?\t{options}\tA\tc" for index, options in rows]
    head = "index\tquestion\tA\tB\tanswer\tcategory"
    (tmp_path / "dev.tsv").write_text("\n".join([head, *lines]))
    for n in range(3):
        (tmp_path / f"{n}.jpg").touch()
    config = read_config("mmbench", annotations=str(tmp_path / "dev.tsv"), limit=2)
    listed = load_questions(config, "mmbench").listed
    assert [question.question_id for question in listed] == [0, 1, 1_000_000, 1_000_001]


@pytest.mark.parametrize("category", ["blind", "easy_blind"])
def test_a_category_is_not_taken_for_a_control(tmp_path, category):
    rows = [{"question": "What?", "answer": "a", "category": c} for c in ("easy", category)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    questions = load_questions(read_config("mine", annotations=str(path), metric="exact"), "mine")
    with pytest.raises(UserError, match=f"controls: blind: mine has a category '{category}'"):
        check_names(questions, ["shuffled", "blind"])
    check_names(questions, ["shuffled"])
