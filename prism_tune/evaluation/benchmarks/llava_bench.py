r"""LLaVA-Bench (in the wild): 60 open questions, compared with GPT-4's answers by a judge.

Source: liuhaotian/llava-bench-in-the-wild, `questions.jsonl`, `context.jsonl`,
    24 images, `answers_gpt4.jsonl` and images/; or the hub's parquet.
Schema: questions {question_id, image "001.jpg", text, category conv | detail | complex}; context
    {id, image, caption (text or list)}; answers {question_id, text}. Reviews (`reviews/*.jsonl`):
    {id, question_id, answer1_id, answer2_id, category "llava_bench_conv", content, tuple}.
Annotations: the folder with the three files (`context.jsonl` and `answers_gpt4.jsonl` are needed by
    the judge alone); reviews are scored without any.
Predictions: LLaVA's answer jsonl, to be judged (`prism-tune judge llava_bench`); or review files of
    any judge, one a run.
Prompt: the question alone; both profiles.
Decoding: greedy, 1,024 new tokens (lmms_eval: 4,096).
Metric (`summarize_gpt_review.py`): 100 x mean of the second grades / mean of the first, over all
    (`score`) and by category (`score_conv`, `score_detail`, `score_complex`); over several review
    files the mean of their scores, and `score_std` (population). Unrounded; the official table
    shows one decimal and rounds the means to three before.
Failed reviews: without two numbers in the first line both grades are -1, which LLaVA leaves in the
    mean; the notes name them. Where all of a file have failed there is no score.
Judges: gpt-4-0314 graded LLaVA-1.5 (65.4), other ones grade otherwise: the result names the judge.
Deviations: none; answers without reviews have no score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import pstdev
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_objects,
    read_parquet,
    require_files,
    require_keys,
    to_id,
    to_name,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.grades import require_one_judge
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.metrics import mean, ratio
from prism_tune.evaluation.predictions import (
    Joined,
    id_key,
    join_predictions,
    name_keys,
    parse_prediction,
)
from prism_tune.schema import BenchmarkResult, Prediction, Question

PREFIX = "llava_bench_"
FAILED = (-1.0, -1.0)
_NUM_QUESTIONS = 60
_UNREVIEWED = "{} question(s) without a review, left out of the mean"
_REVIEW, _FILE = "LLaVA-Bench's review", "its file"

Pair = tuple[float, float]


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of the folder (GPT-4's answers, where it has them, as references) or of parquet.

    Raises:
        UserError: none of these, or a key is missing.
    """
    parquet = find_parquet(path, "train")
    if parquet:
        return [question for file in parquet for question in _load_parquet(file)]
    folder, file = path.parent, path
    if not path.is_file():
        folder = path
        (file,) = require_files(folder, ("questions.jsonl",), "LLaVA-Bench's files")
    references = _read_texts(folder / "answers_gpt4.jsonl", "question_id", "text")
    captions = _read_texts(folder / "context.jsonl", "image", "caption")
    questions = []
    for where, record in read_objects(file):
        require_keys(record, ("question_id", "image", "text", "category"), where)
        key = str(to_id(record["question_id"], f"{where}: question_id"))
        image = to_text(record["image"], f"{where}: image")
        found = references.get(key), captions.get(image, "")
        questions.append(_make_question(record, image, found, where))
    return questions


def read_answers(path: Path) -> list[Prediction]:
    """Answers in LLaVA's format, or a review file (the run of a judge).

    Raises:
        UserError: neither of these.
    """
    answers = [_read_record(record, where, path) for where, record in read_objects(path)]
    if not answers:
        raise UserError(f"{path}: no answers in it")
    return answers


def own_questions(predictions: Sequence[Prediction]) -> list[Question]:
    """The questions of review files, by id and category alone."""
    reviewed = [answer for answer in predictions if _REVIEW in answer.metadata]
    categories = {id_key(a): (a.question_id, a.metadata["category"]) for a in reviewed}
    return [
        Question(key, "", (), None, category, metadata={"question": ""})
        for key, category in categories.values()
    ]


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """The judge's score of each review file, and their mean; no score without reviews.

    Raises:
        UserError: nothing can be joined, reviews of several judges or of other questions, or a file
            without a single grade.
    """
    runs: dict[str, list[Prediction]] = defaultdict(list)
    for answer in predictions:
        runs[answer.metadata[_FILE] if _REVIEW in answer.metadata else ""].append(answer)
    unreviewed = runs.pop("", [])
    joins = [join_predictions(questions, listed, missing=_UNREVIEWED) for listed in runs.values()]
    _check_runs(runs)
    notes = [] if len(questions) == _NUM_QUESTIONS else [_describe_size(questions)]
    if not joins:
        joined = join_predictions(questions, unreviewed)
        notes += ["no reviews: no score; `prism-tune judge llava_bench` has the answers reviewed"]
        return _make_result(joined, profile, {}, {}, [*notes, *joined.notes], [])
    known = {id_key(question) for question in questions}
    rows = [[a for a in listed if id_key(a) in known] for listed in runs.values()]
    for joined, listed in zip(joins, rows, strict=True):
        failed = [id_key(a) for a in listed if a.metadata[_REVIEW] == FAILED]
        what = (
            "{} review(s) without two grades, (-1, -1) in the mean as LLaVA leaves them (the same "
            "`prism-tune judge` asks again)"
        )
        notes += [*joined.notes, name_keys(failed, what)]
    for file, listed in zip(runs, rows, strict=True):
        if all(a.metadata[_REVIEW] == FAILED for a in listed):
            raise UserError(
                f"{file}: not one of its {len(listed)} reviews has two grades: no score"
            )
    judges = sorted({a.metadata["judge"] for listed in rows for a in listed if a.metadata["judge"]})
    require_one_judge(judges, "llava_bench: reviews")
    metrics = _compute_metrics(rows)
    credits = {key: _mean_credit(rows, key) for key in sorted(known)}
    return _make_result(joins[0], profile, metrics, credits, notes, judges)


def _check_runs(runs: Mapping[str, Sequence[Prediction]]) -> None:
    """A mean over runs is one over the same questions. Raises UserError naming the shorter file."""
    reviewed = {file: set(map(id_key, listed)) for file, listed in runs.items()}
    every = set().union(*reviewed.values())
    for file, ids in reviewed.items():
        if ids != every:
            raise UserError(
                f"{file}: {name_keys(sorted(every - ids), '{} question(s) without a review')}, "
                "which the other files have; an unfinished reviewing: resume it, or leave it out"
            )


def _make_result(
    joined: Joined,
    profile: Profile,
    metrics: Mapping[str, float],
    credits: Mapping[str, float],
    notes: Sequence[str],
    judges: Sequence[str],
) -> BenchmarkResult:
    judge = (", ".join(judges) or "unnamed") if metrics else None
    return joined.make_result(
        *("llava_bench", profile, metrics, credits, list(dict.fromkeys(notes))),
        scale=100,
        judge=judge,
        groups={},
    )


def _compute_metrics(runs: Sequence[Sequence[Prediction]]) -> dict[str, float]:
    """The mean over the runs of each ratio, and the deviation of the whole one."""
    whole = [_score([answer.metadata[_REVIEW] for answer in listed]) for listed in runs]
    metrics = {"score": mean(whole)}
    if len(runs) > 1:
        metrics["score_std"] = pstdev(whole)
    categories = sorted({a.metadata["category"] for listed in runs for a in listed} - {""})
    for category in categories:
        scores = [
            _score([a.metadata[_REVIEW] for a in listed if a.metadata["category"] == category])
            for listed in runs
        ]
        metrics[f"score_{category}"] = mean(scores)
    return metrics


def _score(pairs: Sequence[Pair]) -> float:
    return 100 * ratio(mean(ours for _, ours in pairs), mean(theirs for theirs, _ in pairs))


def _mean_credit(runs: Sequence[Sequence[Prediction]], key: str) -> float:
    """The mean of a question's own grades, of 10; a failed review is 0."""
    grades = [a.metadata[_REVIEW][1] for listed in runs for a in listed if id_key(a) == key]
    return mean(min(max(grade / 10, 0.0), 1.0) for grade in grades)


def _describe_size(questions: Sequence[Question]) -> str:
    return f"{len(questions)} questions; LLaVA-Bench has {_NUM_QUESTIONS}"


def _read_record(record: Mapping[str, Any], where: str, file: Path) -> Prediction:
    pair = record.get("tuple", record.get("score"))
    if pair is None:
        return parse_prediction(record, where)
    require_keys(record, ("question_id",), where)
    return Prediction(
        question_id=to_id(record["question_id"], f"{where}: question_id"),
        prompt="",
        text="",
        metadata={
            _REVIEW: _read_pair(pair, where),
            _FILE: str(file),
            "category": to_name(record.get("category"), f"{where}: category").removeprefix(PREFIX),
            "judge": to_name(record.get("judge"), f"{where}: judge"),
        },
    )


def _read_pair(pair: Any, where: str) -> Pair:
    numbers = [n for n in pair if isinstance(n, int | float)] if isinstance(pair, list) else []
    if len(numbers) != 2 or len(pair) != 2:
        raise UserError(f"{where}: tuple: expected two grades, found {pair!r}")
    return float(numbers[0]), float(numbers[1])


def _read_texts(file: Path, key: str, text: str) -> dict[str, str]:
    """A file's texts by key; empty where there is no such file. A list becomes lines."""
    texts = {}
    for where, record in read_objects(file) if file.exists() else []:
        require_keys(record, (key, text), where)
        value = record[text]
        lines = value if isinstance(value, list) else [value]
        texts[str(record[key])] = "\n".join(to_text(line, f"{where}: {text}") for line in lines)
    return texts


def _make_question(
    record: Mapping[str, Any], image: str, found: tuple[str | None, str], where: str
) -> Question:
    text, (reference, caption) = to_text(record["text"], f"{where}: text"), found
    return Question(
        question_id=to_id(record["question_id"], f"{where}: question_id"),
        text=text,
        images=(image,),
        reference=reference,
        category=to_name(record["category"], f"{where}: category").removeprefix(PREFIX),
        metadata={"question": text, "caption": caption},
    )


def _load_parquet(file: Path) -> list[Question]:
    columns = ("question_id", "question", "category")
    questions = []
    for index, row in enumerate(read_parquet(file, columns, ("caption", "gpt_answer"))):
        found = row.get("gpt_answer"), row.get("caption") or ""
        record, where = {**row, "text": row["question"]}, f"{file}, row {index}"
        questions.append(_make_question(record, parquet_image(file, index, "image"), found, where))
    return questions


BENCHMARK = Benchmark(
    name="llava_bench",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 1024, "lmms_eval": 4096},
    own_questions=own_questions,
)
