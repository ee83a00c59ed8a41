from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_tune.errors import UserError
from prism_tune.quickstart.pool import (
    TASKS,
    DrawingQuestion,
    build_pool,
    build_test,
    classify_question,
    draw_images,
    parse_questions,
)

COLOURS = st.sampled_from(["black", "blue", "brown", "gray", "green", "red", "teal", "yellow"])
SHAPES = st.sampled_from(["circle", "rectangle", "triangle"])

# Every form of question in easy-VQA, by task; {} is a colour or a shape.
COLOUR_FORMS = [
    "what color is the shape?",
    "what color is the {}?",
    "what is the color of the {}?",
    "what is the color of the shape?",
]
SHAPE_FORMS = [
    "what shape is in the image?",
    "what shape does the image contain?",
    "what shape is present?",
    "what is the {} shape?",
]
PRESENCE_FORMS = [
    "is a {} present?",
    "is there a {}?",
    "does the image contain a {}?",
    "is there a {} in the image?",
]
ABSENCE_FORMS = [
    "does the image not contain a {}?",
    "is there not a {}?",
    "is there not a {} in the image?",
    "is no {} present?",
]


@given(st.sampled_from(COLOUR_FORMS), SHAPES)
def test_questions_about_the_colour(form, shape):
    assert classify_question(form.format(shape)) == "colour"


@given(st.sampled_from(SHAPE_FORMS), COLOURS)
def test_questions_about_the_shape(form, colour):
    assert classify_question(form.format(colour)) == "shape"


@given(st.sampled_from(PRESENCE_FORMS), COLOURS, SHAPES)
def test_questions_about_presence(form, colour, shape):
    assert classify_question(form.format(f"{colour} shape")) == "colour-presence"
    assert classify_question(form.format(shape)) == "shape-presence"


@given(st.sampled_from(ABSENCE_FORMS), COLOURS, SHAPES)
def test_questions_about_absence(form, colour, shape):
    assert classify_question(form.format(f"{colour} shape")) == "colour-absence"
    assert classify_question(form.format(shape)) == "shape-absence"


def test_another_question_is_refused():
    with pytest.raises(UserError, match="not an easy-VQA question: 'who drew this"):
        classify_question("who drew this?")


QUESTIONS = parse_questions(
    json.dumps(
        [
            ["is there a circle?", "yes", 7],
            ["what color is the shape?", "red", 7],
            ["what shape is present?", "square", 2],
            ["what color is the circle?", "red", 7],
        ]
    ).encode()
)


def test_one_record_per_image_and_task_with_the_image_in_the_first_turn():
    assert build_pool(QUESTIONS, [7]) == [
        {
            "id": "colour-7",
            "image": "7.png",
            "source": "colour",
            "conversations": [
                {"from": "human", "value": "<image>\nwhat color is the shape?"},
                {"from": "gpt", "value": "red"},
                {"from": "human", "value": "what color is the circle?"},
                {"from": "gpt", "value": "red"},
            ],
        },
        {
            "id": "shape-presence-7",
            "image": "7.png",
            "source": "shape-presence",
            "conversations": [
                {"from": "human", "value": "<image>\nis there a circle?"},
                {"from": "gpt", "value": "yes"},
            ],
        },
    ]


def test_held_out_questions_keep_their_place_in_the_file_as_id():
    rows = {row["question_id"]: row for row in build_test(QUESTIONS)}
    places = sorted(int(question_id.rpartition("-")[2]) for question_id in rows)
    assert places == [0, 1, 2, 3]
    assert rows["open-2"] == {
        "question_id": "open-2",
        "image": "2.png",
        "text": "what shape is present?",
        "answer": "square",
        "category": "shape",
    }


def test_the_shuffled_order_is_fixed():
    questions = [DrawingQuestion("is there a circle?", "yes", i) for i in range(10)]
    order = [row["question_id"] for row in build_test(questions)]
    assert order == [f"yes_no-{place}" for place in (7, 8, 1, 5, 3, 4, 2, 0, 9, 6)]


@given(
    st.lists(
        st.builds(
            DrawingQuestion,
            st.sampled_from([*COLOUR_FORMS, *SHAPE_FORMS, *PRESENCE_FORMS, *ABSENCE_FORMS]).map(
                lambda form: form.format("red shape")
            ),
            st.just("yes"),
            st.integers(0, 5),
        ),
        min_size=1,
    )
)
def test_no_question_is_lost_or_invented(questions):
    images = draw_images(questions, len({q.image for q in questions}))
    records = build_pool(questions, images)
    assert len({record["id"] for record in records}) == len(records)
    asked = [
        (record["image"], record["source"], turn["value"].removeprefix("<image>\n"))
        for record in records
        for turn in record["conversations"][::2]
    ]
    expected = [(q.image_file, classify_question(q.text), q.text) for q in questions]
    assert sorted(asked) == sorted(expected)
    assert {record["source"] for record in records} <= set(TASKS)
    assert all(r["conversations"][0]["value"].startswith("<image>\n") for r in records)


def test_the_draw_is_fair_fixed_and_in_order():
    questions = [DrawingQuestion("is there a circle?", "yes", i) for i in range(1000)]
    images = draw_images(questions, 100)
    assert images == draw_images(reversed(questions), 100)
    assert images == sorted(set(images))
    assert len(images) == 100
    assert 400 < sum(images) / 100 < 600
