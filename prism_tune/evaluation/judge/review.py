"""LLaVA-Bench's reviews: answers in, a review file a run out, in the official format.

The file is written after every review: a killed or refused reviewing goes on where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import read_objects
from prism_tune.evaluation.benchmark import open_questions
from prism_tune.evaluation.benchmarks import llava_bench
from prism_tune.evaluation.judge.evaluated import score_judged
from prism_tune.evaluation.judge.judge import Judge, check_inputs, make_slug
from prism_tune.evaluation.judge.review_prompt import Rules
from prism_tune.evaluation.predictions import id_key, join_predictions
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import write_atomic, write_json
from prism_tune.schema import BenchmarkResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reviewing:
    """What there is to review.

    Attributes:
        predictions: the answer file.
        annotations: LLaVA-Bench's folder.
        prompts: the message on each answer, by question id.
        records: what a review file says of each answer besides, by question id.
        paths: the review file of each run.
        inputs: what the reviews depend on, by the name shown when it changed.
    """

    predictions: Path
    annotations: Path
    prompts: Mapping[str, str]
    records: Mapping[str, Mapping[str, Any]]
    paths: tuple[Path, ...]
    inputs: Mapping[str, Any]

    def list_due(self, path: Path) -> list[str]:
        """The questions without a review in a run's file, or whose review has no two grades."""
        reviews = read_reviews(path)
        return [
            key
            for key in self.prompts
            if key not in reviews or tuple(reviews[key]["tuple"]) == llava_bench.FAILED
        ]

    def count_calls(self) -> int:
        """Reviews that are still to be given."""
        return sum(len(self.list_due(path)) for path in self.paths)


def read_reviews(path: Path) -> dict[str, dict[str, Any]]:
    """A run's reviews so far, by question id; none where there is no file yet."""
    there = read_objects(path) if path.exists() else []
    return {str(record["question_id"]): record for _, record in there}


def plan_reviews(
    predictions: Path,
    annotations: Path,
    rules: Rules,
    *,
    judge_name: str,
    num_runs: int,
    path: Path | None,
) -> Reviewing:
    """Join answers, questions and references, and look at what has been reviewed before.

    Args:
        predictions: an answer file of LLaVA-Bench.
        annotations: its folder, with `context.jsonl` and `answers_gpt4.jsonl`; or parquet.
        rules: the judge's.
        judge_name: the model as it was asked for.
        num_runs: how often each answer is reviewed; LLaVA's figures are the mean of 3.
        path: the review files' stem; by default beside the answers, named after the judge.

    Raises:
        UserError: files that are not as expected, or review files made with something else.
    """
    questions = open_questions(llava_bench.BENCHMARK, annotations, "llava15")
    if any(question.reference is None for question in questions):
        raise UserError(f"{annotations}: no answers_gpt4.jsonl, which the judge compares with")
    joined = join_predictions(questions, llava_bench.BENCHMARK.read_predictions(predictions))
    for note in joined.notes:
        logger.info("%s", note)
    prompts: dict[str, str] = {}
    records: dict[str, dict[str, Any]] = {}
    for question in questions:
        key, answer = id_key(question), joined.answers.get(id_key(question))
        if answer is None:
            continue
        caption, asked = question.metadata["caption"], question.metadata["question"]
        pair = (question.reference, answer.text)
        prompts[key] = rules.render(question.category, caption, asked, pair)
        records[key] = {
            "id": len(records) + 1,
            "question_id": question.question_id,
            "answer1_id": str(question.question_id),
            "answer2_id": answer.answer_id,
            "category": f"{llava_bench.PREFIX}{question.category}",
        }
    stem = path or predictions.parent / f"llava_bench_{make_slug(judge_name)}"
    paths = tuple(Path(f"{stem}-review-{run + 1}.jsonl") for run in range(num_runs))
    inputs = {"judge": judge_name, "prompts": fingerprint(prompts), "table": rules.checksum}
    for file in paths:
        check_inputs(file, file.with_suffix(".judge.json"), inputs)
    return Reviewing(predictions, annotations, prompts, records, paths, inputs)


def review(reviewing: Reviewing, judge: Judge) -> BenchmarkResult:
    """Give the reviews that are missing or have no two grades, run by run, then score.

    A `results.json` of `evaluate` beside the answers takes the judge's score.

    Raises:
        UserError: the judge refuses or cannot be reached; the reviews so far are kept.
    """
    for run, path in enumerate(reviewing.paths, 1):
        write_json(path.with_suffix(".judge.json"), reviewing.inputs)
        reviews, due = read_reviews(path), reviewing.list_due(path)
        for number, key in enumerate(due, 1):
            given = judge.review(reviewing.prompts[key])
            reviews[key] = {
                **reviewing.records[key],
                "content": given.content,
                "tuple": list(given.pair),
                "judge": given.model,
            }
            lines = (orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in reviews.values())
            write_atomic(path, b"".join(lines))
            logger.info("run %d: %d of %d: %s: %s", run, number, len(due), key, given.pair)
    return score_judged("llava_bench", reviewing.paths, reviewing)
