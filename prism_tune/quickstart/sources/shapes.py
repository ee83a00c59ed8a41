"""easy-VQA (wheel `easy-vqa`, MIT): 4,000 drawings of one coloured shape, 64 x 64.

Its own questions: what shape and colour (one record), and whether a colour or a shape is there or
is not (a record each). Held out is one that asks for the shape or the colour. Drawings of which it
asks neither are left out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from prism_tune.quickstart.assets import EASY_VQA, read_members
from prism_tune.quickstart.pool import DrawingQuestion, classify_question, parse_questions
from prism_tune.quickstart.sources.example import Example, Turn, shuffled

_FOLDER = "easy_vqa/data/train"
_OPEN = ("colour", "shape")
_MAX_TURNS = 3


def draw_shapes(wheels: Mapping[str, Path], num_examples: int) -> list[Example]:
    """Examples of easy-VQA's training set."""
    wheel = wheels[EASY_VQA.name]
    (questions,) = read_members(wheel, [f"{_FOLDER}/questions.json"])
    by_image: dict[int, list[DrawingQuestion]] = {}
    for question in parse_questions(questions):
        by_image.setdefault(question.image, []).append(question)
    complete = [asked for asked in by_image.values() if set(_OPEN) <= _answers(asked).keys()]
    chosen = shuffled(complete, "shapes")[:num_examples]
    images = read_members(wheel, [f"{_FOLDER}/images/{asked[0].image}.png" for asked in chosen])
    rng = random.Random("shapes")
    return [_make_example(image, asked, rng) for image, asked in zip(images, chosen, strict=True)]


def _answers(asked: Sequence[DrawingQuestion]) -> dict[str, str]:
    return {classify_question(question.text): question.answer for question in asked}


def _make_example(image: bytes, asked: Sequence[DrawingQuestion], rng: random.Random) -> Example:
    kinds: dict[str, list[Turn]] = {"what": [], "colour": [], "shape": []}
    for question in asked:
        task = classify_question(question.text)
        kind = "what" if task in _OPEN else task.partition("-")[0]
        kinds[kind].append(Turn(question.text, question.answer))
    known = _answers(asked)
    talks = tuple(tuple(turns[:_MAX_TURNS]) for turns in kinds.values() if turns)
    return Example(image, f"{known['colour']} {known['shape']}", talks, rng.choice(kinds["what"]))
