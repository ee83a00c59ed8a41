"""What a benchmark is: four functions and two numbers. `benchmarks/` holds one file for each."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import PARQUET
from prism_tune.evaluation.predictions import id_key, name_keys
from prism_tune.run.fingerprints import fingerprint
from prism_tune.schema import IMAGE_PLACEHOLDER, BenchmarkResult, Prediction, Question

logger = logging.getLogger(__name__)

_PLACED = re.compile(rf"\A(?:{IMAGE_PLACEHOLDER}\s*)+|^{IMAGE_PLACEHOLDER}[ \t]*(?:\n|\Z)", re.M)
"""Placeholders as LLaVA's files have them: before the question, or on a line of their own."""

GRADE = "a judge's grade"
"""Where `metadata` of a question or an answer has what a judge gave, if a file holds it."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark under its official protocol.

    Attributes:
        name: its key in `BENCHMARKS`.
        load_questions: (annotations, profile) -> every question with its prompt text and reference.
            Raises UserError naming the file and what was expected. Text is empty where the file
            holds references alone (it can score, not ask). Images are paths relative to the image
            folder, `parquet:<file>#<row>#<column>`, or data URIs.
        read_predictions: an answer file or folder in any of the benchmark's published layouts ->
            predictions, as they stand in it.
        score: (questions, predictions, profile) -> the official metrics. Predictions are joined by
            id, never by position; missing, duplicate and unknown ids are named in `notes`.
        max_new_tokens: per profile, of the official decoding.
        write_submission: (questions, predictions, folder) -> the official submission file; None
            where the benchmark has none.
        own_questions: the questions that answer files bring along where a result or review file
            holds the references, so that no annotations are needed; None where none does.
        credit_key: where a question's credit stands in `BenchmarkResult.per_question`.
    """

    name: str
    load_questions: Callable[[Path, Profile], list[Question]]
    read_predictions: Callable[[Path], list[Prediction]]
    score: Callable[[Sequence[Question], Sequence[Prediction], Profile], BenchmarkResult]
    max_new_tokens: Mapping[Profile, int]
    write_submission: Callable[[Sequence[Question], Sequence[Prediction], Path], Path] | None = None
    own_questions: Callable[[Sequence[Prediction]], list[Question]] | None = None
    credit_key: Callable[[Question], str] = id_key


def open_questions(benchmark: Benchmark, annotations: Path, profile: Profile) -> list[Question]:
    """A benchmark's questions out of somebody's files, checked as a whole.

    LLaVA's placeholders, which stand for the images that a question has anyway, are taken out; any
    other `<image>` is a word, and the log says so.

    Raises:
        UserError: as `load_questions`; no question; an image that is no text or in some other
            parquet file; placeholders for other than its images; some have a reference and others
            have none, which is a damaged file and never a test split.
    """
    questions = benchmark.load_questions(annotations, profile)
    if not questions:
        raise UserError(f"{annotations}: no questions in it")
    _check_images(questions, annotations)
    questions = _take_placeholders(questions, annotations)
    withheld = [question for question in questions if question.reference is None]
    if withheld and len(withheld) < len(questions):
        raise UserError(
            f"{annotations}: question {withheld[0].question_id}: no reference, as for "
            f"{len(withheld)} of {len(questions)} questions; expected one for each, or, in a test "
            "split, for none. Is the file complete?"
        )
    return questions


def list_first(
    questions: Sequence[Question], benchmark: Benchmark, limit: int | None
) -> tuple[Question, ...]:
    """The questions up to `limit`. What shares a credit is one: half a circle would be easier."""
    if limit is None:
        return tuple(questions)
    keys = list(dict.fromkeys(map(benchmark.credit_key, questions)))
    first = set(keys[:limit])
    return tuple(q for q in questions if benchmark.credit_key(q) in first)


def fingerprint_questions(questions: Sequence[Question], annotations: Path) -> str:
    """The checksum of questions and references, the same wherever their annotations lie."""
    names = name_portably((image for q in questions for image in q.images), annotations)
    portable = [tuple(names[image] for image in question.images) for question in questions]
    return fingerprint(
        [
            question if images == question.images else replace(question, images=images)
            for question, images in zip(questions, portable, strict=True)
        ]
    )


def name_portably(images: Iterable[str], annotations: Path) -> dict[str, str]:
    """References as they stand -> without the folder that a parquet file of theirs lies in."""
    folder = annotations if annotations.is_dir() else annotations.parent
    head = f"{PARQUET}{os.path.abspath(folder)}{os.sep}"
    return {
        image: PARQUET + image.removeprefix(head) if image.startswith(head) else image
        for image in images
    }


def _take_placeholders(questions: list[Question], annotations: Path) -> list[Question]:
    taken = [
        _take_placed(question, annotations) if IMAGE_PLACEHOLDER in question.text else question
        for question in questions
    ]
    literal = [id_key(question) for question in taken if IMAGE_PLACEHOLDER in question.text]
    if literal:
        what = f"{{}} question(s) with {IMAGE_PLACEHOLDER} in a line, read as text"
        logger.warning("%s: %s", annotations, name_keys(literal, what))
    return taken


def _take_placed(question: Question, annotations: Path) -> Question:
    num_placed = sum(m[0].count(IMAGE_PLACEHOLDER) for m in _PLACED.finditer(question.text))
    if not num_placed:
        return question
    if num_placed != len(question.images):
        raise UserError(
            f"{annotations}: question {question.question_id}: {num_placed} {IMAGE_PLACEHOLDER} "
            f"placeholder(s) in its text, and {len(question.images)} image(s); its images are "
            "shown before the text, so leave the placeholders out"
        )
    metadata = dict(question.metadata)
    if isinstance(asked := metadata.get("question"), str):
        metadata["question"] = _take_out(asked)
    return replace(question, text=_take_out(question.text), metadata=metadata)


def _take_out(text: str) -> str:
    taken = _PLACED.sub("", text)
    return taken.rstrip("\n") if taken != text else text


def _check_images(questions: Sequence[Question], annotations: Path) -> None:
    """References into parquet files are ours; one in a question's text could name any file."""
    root = os.path.abspath(annotations)  # links stay: in the hub's cache each file is one
    inside: dict[str, bool] = {}
    for question in questions:
        for image in question.images:
            if not isinstance(image, str):
                raise UserError(
                    f"{annotations}: question {question.question_id}: image: expected a path as "
                    f"text, found {image!r}"
                )
            if not image.startswith(PARQUET):
                continue
            file, *place = image.removeprefix(PARQUET).rsplit("#", 2)
            if file not in inside:
                inside[file] = Path(os.path.abspath(file)).is_relative_to(root)
            if len(place) != 2 or not inside[file]:
                raise UserError(
                    f"{annotations}: question {question.question_id}: its image {image[:80]!r} is "
                    "not in these annotations; expected a path relative to the benchmark's image "
                    "folder"
                )
