"""A benchmark's questions as they are asked: loaded, up to `limit`, their images looked at.

In: the config and a benchmark's name. Out: `Questions`, and under a control the same questions
without their image ("blind") or with another question's ("shuffled"). What becomes of a question
whose image cannot be used is `data.policy`'s to say; a skipped one stays in the benchmark: it
counts as answered wrongly, and the result names it with its reason.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism_tune.config.sections import BenchmarkData, Config, Control
from prism_tune.data.examination import Finding
from prism_tune.data.image_paths import ImageFolders
from prism_tune.data.policy import apply_policy, decide
from prism_tune.errors import ConfigError, UserError, list_some
from prism_tune.evaluation.benchmark import (
    GRADE,
    Benchmark,
    fingerprint_questions,
    list_first,
    open_questions,
)
from prism_tune.evaluation.image_references import find_folders
from prism_tune.evaluation.images import ImageFiles, find_images, find_missing
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.score import find_benchmark
from prism_tune.schema import Question, Skipped


@dataclass(frozen=True)
class Questions:
    """One benchmark's questions.

    Attributes:
        benchmark: its protocol.
        listed: the first `limit` ones, of MMBench with all rows of their circles; those that are
            skipped stay in it.
        checksum: of all questions and their references.
        folders: that their images lie in.
        num_images: different images of the listed ones.
        missing: images that are not there, which `data.policy` lets be skipped.
    """

    benchmark: Benchmark
    listed: tuple[Question, ...]
    checksum: str
    folders: ImageFolders
    num_images: int
    missing: frozenset[str]


def find_data(config: Config, name: str) -> BenchmarkData:
    """Where a benchmark's files lie.

    Raises:
        ConfigError: the config does not say, or says how to ask an official benchmark.
    """
    data = config.evaluation.data.get(name)
    if data is None:
        raise ConfigError(
            f"evaluation.data.{name}.annotations: missing; set it to the benchmark's official "
            f"files or the hub's parquet (data/README.md shows their layout), or leave `{name}` "
            "out of evaluation.benchmarks"
        )
    own = [key for key in ("instruction", "max_new_tokens") if getattr(data, key) is not None]
    if (own or data.metric) and (name in LANGUAGE_BENCHMARKS or not data.metric):
        raise ConfigError(
            f"evaluation.data.{name}.{own[0] if own else 'metric'}: for benchmarks of your own, "
            "which have a `metric`; an official protocol has its own"
        )
    return data


def load_questions(config: Config, name: str) -> Questions:
    """The questions of a benchmark, and which of their images are there; none is opened.

    Raises:
        ConfigError: no `evaluation.data` for it.
        UserError: no such benchmark, bad annotations, annotations that can score but not ask,
            missing images whose policy is "fail".
    """
    data = config.evaluation.data.get(name) or BenchmarkData(annotations="")
    benchmark = find_benchmark(
        name, data.metric, instruction=data.instruction, max_new_tokens=data.max_new_tokens
    )
    data = find_data(config, name)
    annotations = Path(data.annotations)
    questions = open_questions(benchmark, annotations, config.evaluation.profile)
    if not all(question.text for question in questions):
        raise UserError(
            f"evaluation.data.{name}.annotations: {annotations} holds references, not questions: "
            "it can score answers (`prism-tune score`), but nothing can be asked from it; set it "
            "to the benchmark's question file or the hub's parquet (data/README.md)"
        )
    if any(question.metadata.get(GRADE) for question in questions):
        raise UserError(
            f"evaluation.data.{name}.annotations: {annotations} holds a judge's grades beside the "
            "questions, and they are of other answers; set it to the file of the questions"
        )
    folders = find_folders(config, name)
    listed = list_first(questions, benchmark, data.limit)
    images = {image for question in listed for image in question.images}
    missing = find_missing(images, folders)
    policy = config.data.policy
    refused = {image: it for image, it in missing.items() if decide(it[0], policy) == "fail"}
    if refused:
        raise UserError(_describe_refused(refused, len(images), folders))
    checksum = fingerprint_questions(questions, annotations)
    return Questions(benchmark, listed, checksum, folders, len(images), frozenset(missing))


def _describe_refused(
    refused: Mapping[str, Finding], num_images: int, folders: ImageFolders
) -> str:
    """Which images, and what is wrong: they are not there, or what the first one's finding says."""
    listing = list_some(list(refused))
    number = f"{folders.setting}: {len(refused)} of {num_images} images"
    other = next((text for reason, text in refused.values() if reason != "image_missing"), "")
    if other:
        return f"{number} cannot be used: {listing}; {other}"
    remedy = "set it to the folder they are relative to"
    return f"{number} are not in {folders.base}: {listing}; {remedy}"


def open_images(questions: Questions, *, num_workers: int) -> ImageFiles:
    """Every image of the questions."""
    references = {image for question in questions.listed for image in question.images}
    return find_images(references, questions.folders, num_workers=num_workers)


def skip_questions(
    questions: Questions, images: ImageFiles, policy: Mapping[str, str]
) -> dict[int, Skipped]:
    """The questions to leave out, by their place.

    Raises:
        UserError: listing questions with a fault whose policy is "fail", or no question is left.
    """
    skipped = {}
    for number, question in enumerate(questions.listed):
        fault = next((images.faults[i] for i in question.images if i in images.faults), None)
        if fault is not None:
            name = str(question.question_id)
            skipped[number] = Skipped(name, name, fault[0], f"question {name!r}: {fault[1]}")
    where = f"evaluation.data.{questions.benchmark.name}"
    apply_policy(where, list(skipped.values()), policy, noun="question")
    if skipped and len(skipped) == len(questions.listed):
        raise UserError(f"{where}: all {len(skipped)} questions were skipped, nothing to ask")
    return skipped


def note_skipped(skipped: Mapping[int, Skipped], num_questions: int) -> list[str]:
    """What a result with skipped questions has to say about its numbers."""
    if not skipped:
        return []
    counts = list_skipped(skipped)["num_skipped"]
    reasons = ", ".join(f"{reason} {number}" for reason, number in counts.items())
    return [f"{len(skipped)} of {num_questions} question(s) skipped, counted as wrong: {reasons}"]


def list_skipped(skipped: Mapping[int, Skipped]) -> dict[str, Any]:
    """Counts per reason, and every skipped question with its reason."""
    return {
        "num_skipped": dict(sorted(Counter(item.reason for item in skipped.values()).items())),
        "skipped": [
            {"question_id": item.id, "reason": item.reason, "detail": item.detail}
            for item in skipped.values()
        ],
    }


def check_names(questions: Questions, controls: Sequence[Control]) -> None:
    """Keep apart a category's metric, `accuracy_<category>`, and a control's, `<metric>_<control>`.

    Raises:
        UserError: a category whose metrics would have the names of a control's.
    """
    categories = {question.category for question in questions.listed}
    for control in controls:
        of_control = {control, *(f"{category}_{control}" for category in categories)}
        if found := sorted(categories & of_control):
            raise UserError(
                f"evaluation.controls: {control}: {questions.benchmark.name} has a category "
                f"{found[0]!r}, whose metrics would have the names of the control's; rename the "
                "category, or leave the control out"
            )


def apply_control(
    control: Control, questions: Sequence[Question], hashes: Mapping[str, str], *, seed: int
) -> list[Question]:
    """The questions with their images taken away or exchanged; text-only ones stay as they are.

    A model that answers these as well as the real ones reads the answer off the question.

    Args:
        control: which.
        questions: as they are asked.
        hashes: of each image's content, by which images are the same.
        seed: of the exchange.

    Raises:
        UserError: "shuffled" with fewer than two different images.
    """
    if control == "blind":
        return [replace(question, images=()) for question in questions]
    shown = {q.images: tuple(hashes[name] for name in q.images) for q in questions if q.images}
    exchanged = _exchange_images(shown, seed)
    return [
        replace(question, images=exchanged[shown[question.images]]) if question.images else question
        for question in questions
    ]


def _exchange_images(
    shown: Mapping[tuple[str, ...], tuple[str, ...]], seed: int
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """What is shown -> the images of the next in a seeded random circle: never the same.

    Args:
        shown: images -> their contents. Files that hold the same are one.
        seed: of the circle.
    """
    named = {content: images for images, content in sorted(shown.items(), reverse=True)}
    circle = sorted(named, key=named.__getitem__)
    if len(circle) == 1:
        raise UserError(
            "evaluation.controls: `shuffled` needs questions on at least two images; "
            f"all are on {', '.join(named[circle[0]])}; raise the benchmark's `limit`"
        )
    random.Random(seed).shuffle(circle)
    following = circle[1:] + circle[:1]
    return {content: named[other] for content, other in zip(circle, following, strict=True)}
