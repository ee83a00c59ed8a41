r"""POPE: is this object in the image? Three splits over COCO val2014.

Source: RUCAIBox/POPE, `output/coco/coco_pope_{random,popular,adversarial}.json`.
Schema: JSON lines {question_id (1.. in every split), image, text, label "yes" | "no"}; or the
    hub's parquet {question_id, question, answer, image, image_source, category}.
Versions: LLaVA pins commit e3e39262 with 2,910 random rows (8,910 in all); since October 2023 the
    random file has 3,000 rows in another order with mended spelling (9,000 in all). Numbers of
    the two are not comparable; the version is named in every result.
Ids: POPE's repeat per split, so questions carry LLaVA's global ids: the official one in
    adversarial, plus 10,000,000 in random and 20,000,000 in popular. The join is verified: an
    answer's prompt must contain the question.
Predictions: LLaVA's answer jsonl; POPE's own {question, answer} lines, a file a split (or a folder
    of them, or one file of several splits), joined by their place, which their questions verify.
Prompt: question + "\nAnswer the question using a single word or phrase."; both profiles (lmms_eval
    strips the question before).
Decoding: greedy, 128 new tokens.
Parsing: llava15 (LLaVA `eval_pope.py`): text before the first "."; "," deleted; split at single
    spaces; any word exactly "No", "not" or "no" means no, everything else yes ("NO", "no\n" and
    "unanswerable" are yes). lmms_eval: the lower-case stripped answer, as it stands.
Metric: F1 (positive "yes"), accuracy, precision, recall and share of "yes" per split, in percent;
    `f1` and `accuracy` are the means over the splits. Nothing answered "yes" gives precision and
    F1 0 (the official script divides by zero).
Missing answers: wrong in accuracy, missed in recall.
Deviations: the official script pairs by position. lmms_eval counts only an exact "no" as a false
    negative, and its yes ratio is that of the references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_objects,
    read_parquet,
    require_files,
    require_keys,
    to_number,
    to_text,
    to_yes_no,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.benchmarks.pope_answers import find_places, read_answers
from prism_tune.evaluation.metrics import (
    Outcome,
    YesNoCounts,
    count_yes_no,
    f1_score,
    mean,
    ratio,
)
from prism_tune.evaluation.predictions import (
    Joined,
    find_foreign_prompts,
    id_key,
    join_predictions,
)
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer the question using a single word or phrase."
ID_OFFSETS = {"random": 10_000_000, "popular": 20_000_000, "adversarial": 0}
_NUM_ROWS_PINNED = {"random": 2910, "popular": 3000, "adversarial": 3000}


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of the three splits from the official folder, of one from its file, or parquet.

    Raises:
        UserError: a file or key is missing, a label is neither yes nor no, or a file's name has
            two splits.
    """
    names = [f"coco_pope_{split}.json" for split in ID_OFFSETS]
    if not any((path / name).exists() for name in names) and find_parquet(path, "test"):
        return _load_parquet(path, profile)
    alone = [split for split in ID_OFFSETS if path.is_file() and split in path.name]
    if len(alone) > 1:
        raise UserError(
            f"{path}: of which split are its questions, {' or '.join(alone)}? Their ids depend on "
            "it; name the file coco_pope_<split>.json, or give the folder of all three"
        )
    files = [path] if alone else require_files(path, names, "POPE's three official files")
    questions = []
    for split, file in zip(alone or ID_OFFSETS, files, strict=True):
        records = read_objects(file)
        if not records:
            raise UserError(f"{file}: no questions in it; expected POPE's lines, is it complete?")
        for where, record in records:
            require_keys(record, ("question_id", "image", "text", "label"), where)
            questions.append(_make_question(split, record["image"], record, where, profile))
    return questions


def parse_answer_llava15(text: str) -> str:
    """LLaVA's rule: "no" if one of three words occurs, otherwise "yes"."""
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def parse_answer_lmms_eval(text: str) -> str:
    """lmms-eval's rule: the answer itself, lower case and stripped."""
    return text.lower().strip()


PARSERS: Mapping[Profile, Callable[[str], str]] = {
    "llava15": parse_answer_llava15,
    "lmms_eval": parse_answer_lmms_eval,
}


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """The official metrics per split.

    Raises:
        UserError: an answer's prompt is about another question than the id it carries.
    """
    joined = join_predictions(questions, find_places(questions, predictions))
    _verify_prompts(questions, joined)
    parse = PARSERS[profile]
    texts = {id_key(question): joined.text(id_key(question)) for question in questions}
    parsed = {key: None if text is None else parse(text) for key, text in texts.items()}
    metrics: dict[str, float] = {}
    notes = list(joined.notes)
    for split in ID_OFFSETS:
        outcomes: list[Outcome] = [
            (question.reference, parsed[id_key(question)])
            for question in questions
            if question.category == split
        ]
        if outcomes:
            metrics |= _split_metrics(split, count_yes_no(outcomes), outcomes, profile, notes)
    version, version_note = _describe_version(questions)
    means = {name: _mean_over_splits(metrics, name) for name in ("f1", "accuracy")}
    credits = {id_key(q): float(parsed[id_key(q)] == q.reference) for q in questions}
    return joined.make_result(
        "pope",
        profile,
        means | metrics,
        credits,
        (version_note, *notes),
        scale=100,
        data_version=version,
        groups={"accuracy": ""},
    )


def _split_metrics(
    split: str,
    counts: YesNoCounts,
    outcomes: Sequence[Outcome],
    profile: Profile,
    notes: list[str],
) -> dict[str, float]:
    if not counts.true_positive + counts.false_positive:
        notes.append(f"{split}: nothing was answered yes; precision and F1 are set to 0")
    recall, yes_ratio = counts.recall, counts.yes_ratio
    if profile == "lmms_eval":
        recall = ratio(counts.true_positive, counts.true_positive + counts.false_negative)
        yes_ratio = mean(gold == "yes" for gold, _ in outcomes)
    values = {
        "f1": f1_score(counts.precision, recall),
        "accuracy": counts.accuracy,
        "precision": counts.precision,
        "recall": recall,
        "yes_ratio": yes_ratio,
    }
    return {f"{name}_{split}": 100 * value for name, value in values.items()}


def _mean_over_splits(metrics: Mapping[str, float], name: str) -> float:
    return mean(metrics[f"{name}_{split}"] for split in ID_OFFSETS if f"{name}_{split}" in metrics)


def _describe_version(questions: Sequence[Question]) -> tuple[str, str]:
    categories = [question.category for question in questions]
    num_rows = {split: categories.count(split) for split in ID_OFFSETS}
    listed = ", ".join(f"{split} {count:,}" for split, count in num_rows.items())
    if num_rows == _NUM_ROWS_PINNED:
        return "e3e39262", f"8,910 questions ({listed}): the version LLaVA pins, as in papers"
    if set(num_rows.values()) == {3000}:
        return (
            "HEAD (9,000 rows)",
            f"9,000 questions ({listed}): the version since October 2023; papers after LLaVA use "
            "8,910 questions (commit e3e39262), with which these numbers are not comparable",
        )
    return "part", f"{len(questions):,} questions ({listed}): neither the 8,910 nor the 9,000"


def _verify_prompts(questions: Sequence[Question], joined: Joined) -> None:
    foreign = find_foreign_prompts(questions, joined)
    if not foreign:
        return
    question = next(question for question in questions if id_key(question) == foreign[0])
    raise UserError(
        f"pope: {len(foreign)} answer(s) belong to other questions than their ids say, first "
        f"{foreign[0]} ({question.category}): the annotations ask "
        f"{question.metadata['question']!r}, the answer's prompt is "
        f"{joined.answers[foreign[0]].prompt!r}. Expected LLaVA's global ids and the same version "
        f"of the files: {_describe_version(questions)[1]}"
    )


def _load_parquet(path: Path, profile: Profile) -> list[Question]:
    columns = ("question_id", "question", "answer", "category")
    return [
        _make_question(
            row["category"],
            parquet_image(file, index, "image"),
            {**row, "text": row["question"], "label": row["answer"]},
            f"{file}, row {index}",
            profile,
        )
        for file in find_parquet(path, "test")
        for index, row in enumerate(read_parquet(file, columns))
    ]


def _make_question(
    split: str, image: str, record: Mapping[str, Any], where: str, profile: Profile
) -> Question:
    if split not in list(ID_OFFSETS):
        raise UserError(f"{where}: split {split!r}; expected one of {', '.join(ID_OFFSETS)}")
    text = to_text(record["text"], f"{where}: text")
    return Question(
        question_id=ID_OFFSETS[split] + to_number(record["question_id"], f"{where}: question_id"),
        text=(text.strip() if profile == "lmms_eval" else text) + SUFFIX,
        images=(image,),
        reference=to_yes_no(record["label"], f"{where}: label"),
        category=split,
        metadata={"question": text},
    )


BENCHMARK = Benchmark(
    name="pope",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 128},
)
