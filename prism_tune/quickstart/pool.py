"""easy-VQA's questions -> a LLaVA-style training pool and a held-out question file.

The data set (64 x 64 drawings of one coloured shape each) asks some ten questions about an image,
of six kinds. An image yields one record per kind, holding all questions of that kind as turns, so
the pool has sources as real mixtures do: many records share an image, and some are redundant.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson

from prism_tune.errors import UserError
from prism_tune.schema import IMAGE_PLACEHOLDER

Task = Literal[
    "colour",  # what color is the shape?
    "shape",  # what shape is in the image?
    "colour-presence",  # is there a red shape?
    "colour-absence",  # is there not a red shape?
    "shape-presence",  # is there a circle?
    "shape-absence",  # is no circle present?
]
TASKS: tuple[Task, ...] = get_args(Task)

_SHAPES = frozenset({"circle", "rectangle", "triangle"})
_COLOURS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})
_NEGATIONS = frozenset({"no", "not"})
_ASKS_COLOUR = ("what color is ", "what is the color of ")
_ASKS_SHAPE = ("what shape ", "what is the ")
_SEED = 0


@dataclass(frozen=True)
class DrawingQuestion:
    """One question about one drawing, and its one-word answer."""

    text: str
    answer: str
    image: int

    @property
    def image_file(self) -> str:
        """The drawing's file name."""
        return f"{self.image}.png"


def parse_questions(content: bytes) -> list[DrawingQuestion]:
    """Read easy-VQA's `questions.json`: a list of [question, answer, image index]."""
    return [DrawingQuestion(*row) for row in orjson.loads(content)]


def classify_question(text: str) -> Task:
    """The kind of a question.

    Raises:
        UserError: not one of easy-VQA's question forms.
    """
    if text.startswith(_ASKS_COLOUR):
        return "colour"
    if text.startswith(_ASKS_SHAPE):
        return "shape"
    words = set(text.rstrip("?").split())
    absent = bool(words & _NEGATIONS)
    if words & _COLOURS:
        return "colour-absence" if absent else "colour-presence"
    if words & _SHAPES:
        return "shape-absence" if absent else "shape-presence"
    raise UserError(f"not an easy-VQA question: {text!r}")


def draw_images(questions: Iterable[DrawingQuestion], num_images: int) -> list[int]:
    """A fair draw of images, in ascending order; the same at every call."""
    return draw_from({question.image for question in questions}, num_images)


def draw_from(images: Iterable[int], num_images: int) -> list[int]:
    """A fair draw out of these images, in ascending order; the same at every call."""
    return sorted(random.Random(_SEED).sample(sorted(images), num_images))


def build_pool(questions: Iterable[DrawingQuestion], images: Iterable[int]) -> list[dict[str, Any]]:
    """LLaVA records, one per (image, kind of question), by image and then in the order of TASKS."""
    groups: dict[tuple[int, Task], list[DrawingQuestion]] = {
        (image, task): [] for image in images for task in TASKS
    }
    for question in questions:
        group = groups.get((question.image, classify_question(question.text)))
        if group is not None:
            group.append(question)
    return [_build_record(task, group) for (_, task), group in groups.items() if group]


def build_test(questions: Iterable[DrawingQuestion]) -> list[dict[str, Any]]:
    """Held-out questions in a fixed shuffled order: the first n are a fair draw for any n.

    `question_id` is the question's kind and its place in easy-VQA's file (`open-17`, `yes_no-18`),
    so that a reader of credits per question can tell the kinds apart; `category` is its task.
    """
    rows: list[dict[str, Any]] = [
        {
            "question_id": f"{_kind(question)}-{index}",
            "image": question.image_file,
            "text": question.text,
            "answer": question.answer,
            "category": classify_question(question.text),
        }
        for index, question in enumerate(questions)
    ]
    random.Random(_SEED).shuffle(rows)
    return rows


def _kind(question: DrawingQuestion) -> str:
    return "yes_no" if question.answer in ("yes", "no") else "open"


def _build_record(task: Task, questions: list[DrawingQuestion]) -> dict[str, Any]:
    turns = []
    for index, question in enumerate(questions):
        placeholder = f"{IMAGE_PLACEHOLDER}\n" if index == 0 else ""
        turns.append({"from": "human", "value": placeholder + question.text})
        turns.append({"from": "gpt", "value": question.answer})
    first = questions[0]
    return {
        "id": f"{task}-{first.image}",
        "image": first.image_file,
        "source": task,
        "conversations": turns,
    }
