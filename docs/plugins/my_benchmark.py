"""A benchmark: questions in a CSV file, an answer of which one right word is enough."""

import csv
from collections.abc import Sequence
from pathlib import Path

from prism_tune import (
    Benchmark,
    BenchmarkResult,
    Prediction,
    Question,
    join_predictions,
    read_predictions,
)


def load_questions(path: Path, profile: str) -> list[Question]:
    """Every row's question; images are relative to `evaluation.data.<name>.image_dir`."""
    with path.open(newline="") as file:
        return [
            Question(row["id"], row["question"], (row["image"],), row["words"].split())
            for row in csv.DictReader(file)
        ]


def score(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: str
) -> BenchmarkResult:
    """The first metric is the column in tables; `credits` give it its confidence interval."""
    joined = join_predictions(questions, predictions)  # by id; says what is missing or twice
    credits = {}
    for question in questions:
        answer = joined.text(str(question.question_id)) or ""  # None where it is missing
        credits[str(question.question_id)] = float(bool({*question.reference} & {*answer.split()}))
    metrics = {"word_accuracy": 100 * sum(credits.values()) / len(credits)}
    of_all = {"word_accuracy": ""}  # the mean credit of the questions whose ids begin so
    return joined.make_result(NAME, profile, metrics, credits, joined.notes, groups=of_all)


NAME, TOKENS = "my_words", {"llava15": 16, "lmms_eval": 16}
BENCHMARKS = {NAME: Benchmark(NAME, load_questions, read_predictions, score, TOKENS)}
