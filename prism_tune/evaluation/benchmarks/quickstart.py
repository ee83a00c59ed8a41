"""The quickstart's held-out questions about drawn scenes: six tasks, exact match.

Source: drawn by `prism-tune prepare`; no published numbers exist.
Schema: `test.json`, a list of {question_id, image, text, answer, category}; `category` is the task.
Prompt: the question alone, as in the quickstart's pool; both profiles.
Decoding: greedy, 8 new tokens.
Parsing: both profiles strip the answer, drop one final ".", and ignore case.
Metric: exact match in percent: `accuracy_open` (questions whose answer is neither yes nor no),
    `accuracy_yes_no`, `accuracy` (all), and `accuracy_<task>`.
Missing answers: wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prism_tune.config.sections import Profile
from prism_tune.evaluation.annotations import read_objects, require_keys, to_id, to_name, to_text
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import id_key, join_predictions, read_predictions
from prism_tune.schema import BenchmarkResult, Prediction, Question

_KEYS = ("question_id", "image", "text", "answer", "category")


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions from `test.json`, or from the folder it lies in.

    Raises:
        UserError: not a list of objects with the five keys.
    """
    file = path / "test.json" if path.is_dir() else path
    questions = []
    for where, record in read_objects(file):
        require_keys(record, _KEYS, where)
        text = to_text(record["text"], f"{where}: text")
        questions.append(
            Question(
                question_id=to_id(record["question_id"], f"{where}: question_id"),
                text=text,
                images=(record["image"],),
                reference=to_text(record["answer"], f"{where}: answer"),
                category=to_name(record["category"], f"{where}: category"),
                metadata={"question": text},
            )
        )
    return questions


def parse_answer(text: str) -> str:
    """Lower case, stripped, without one final period."""
    return text.strip().removesuffix(".").strip().lower()


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Exact match, over all questions and by kind. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions)
    credits = {}
    for question in questions:
        text = joined.text(id_key(question))
        right = text is not None and parse_answer(text) == parse_answer(question.reference)
        credits[id_key(question)] = float(right)
    metrics = _compute_metrics(questions, credits)
    groups = {"accuracy_open": "open-", "accuracy_yes_no": "yes_no-", "accuracy": ""}
    return joined.make_result(
        *("quickstart", profile, metrics, credits, joined.notes),
        scale=100,
        protocol="the quickstart's own",
        groups=groups,
    )


def _compute_metrics(
    questions: Sequence[Question], credits: Mapping[str, float]
) -> dict[str, float]:
    kinds = {
        id_key(q): "yes_no" if parse_answer(q.reference) in ("yes", "no") else "open"
        for q in questions
    }
    by_kind = group_credits(credits, kinds)
    tasks = group_credits(credits, {id_key(q): q.category for q in questions})
    metrics = {f"accuracy_{k}": percent(by_kind[k]) for k in ("open", "yes_no") if k in by_kind}
    by_task = {f"accuracy_{task}": percent(values) for task, values in tasks.items()}
    return {**metrics, "accuracy": percent(credits.values()), **by_task}


BENCHMARK = Benchmark(
    name="quickstart",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 8, "lmms_eval": 8},
)
