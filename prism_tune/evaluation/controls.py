"""Controls that tell whether a model looks at the image at all.

In: a benchmark's questions. Out: the same questions without their image ("blind"), or with the
image of another question ("shuffled"). A model that answers these as well as the real ones reads
the answer off the question.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from prism_tune.config.sections import Control
from prism_tune.errors import UserError
from prism_tune.schema import Question


def apply_control(control: Control, questions: Sequence[Question], *, seed: int) -> list[Question]:
    """The questions with their images taken away or exchanged; text-only ones stay as they are.

    Raises:
        UserError: "shuffled" with fewer than two different images.
    """
    if control == "blind":
        return [replace(question, images=()) for question in questions]
    exchanged = _exchange_images(questions, seed)
    return [
        replace(question, images=exchanged[question.images]) if question.images else question
        for question in questions
    ]


def add_control_metrics(
    metrics: Mapping[str, float], control: Control, control_metrics: Mapping[str, float]
) -> dict[str, float]:
    """`metrics` with the control's beside them, as `<metric>_<control>`."""
    return {**metrics, **{f"{name}_{control}": value for name, value in control_metrics.items()}}


def _exchange_images(
    questions: Sequence[Question], seed: int
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Each image -> the next one in a seeded random circle: never itself."""
    circle = sorted({question.images for question in questions if question.images})
    if len(circle) == 1:
        raise UserError(
            "evaluation.controls: `shuffled` needs questions on at least two images; "
            f"all are on {', '.join(circle[0])}; raise the benchmark's `limit`"
        )
    random.Random(seed).shuffle(circle)
    return dict(zip(circle, circle[1:] + circle[:1], strict=True))
