r"""SEED-Bench (v1): 19,242 multiple-choice questions, 14,233 on images and 5,009 on videos.

Source: AILab-CVC/SEED-Bench, `SEED-Bench.json`; LLaVA's `llava-seed-bench.jsonl` (asks, has no
    answers); or the hub's parquet.
Schema: {"questions": [{question_id, question, choice_a ... choice_d, answer "A", data_type image |
    video, data_id, question_type_id, ...}], "question_type": {name: id}}; LLaVA's: {question_id,
    image, text, category}. Images are `SEED-Bench-image/<data_id>`; a video is one frame out of its
    middle, `SEED-Bench-video-image/<question_type_id>_<question_id>.png`, as LLaVA extracts it.
Predictions: LLaVA's answer jsonl, or the upload of {question_id, prediction} lines made of it.
Prompt: question + "\nA. ...\nB. ...\nC. ...\nD. ..." +
    "\nAnswer with the option's letter from the given choices directly."; both profiles.
Decoding: greedy, 1,024 new tokens.
Parsing: llava15 (`convert_seed_for_submission.py`): right if the answer is exactly the letter.
    lmms_eval: stripped, the first character, case apart.
Metric: `accuracy` over all questions (LLaVA-1.5's 58.6), `accuracy_image`, `accuracy_video`, and by
    question type, in percent. Where no video question has an answer (their frames are missing),
    `accuracy` is left out, and only the image questions' figures stand.
Missing answers: wrong. `data.policy` image_missing=skip asks the questions whose frames are there.
Submission: `seed_bench_upload.jsonl`, {question_id, prediction} lines.
Deviations: lmms-eval shows eight frames of a video, here it is one under both profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_json_file,
    read_objects,
    read_parquet,
    require_keys,
    to_id,
    to_letter,
    to_name,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import (
    Joined,
    find_foreign_prompts,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.run.folder import write_atomic
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
_LETTERS = "ABCD"
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_KEYS = ("question_id", "question", *_CHOICES, "data_type")
_COUNTS = {"image": 14233, "video": 5009}
_FRAMES = "SEED-Bench-video-image"


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of SEED-Bench.json, LLaVA's question file, or the hub's parquet.

    Raises:
        UserError: none of these, a key is missing, or an answer that is no letter.
    """
    if not path.is_dir() and path.suffix == ".jsonl":
        return [_from_llava(record, where) for where, record in read_objects(path)]
    if find_parquet(path, "test"):
        return [question for file in find_parquet(path, "test") for question in _load_parquet(file)]
    file = path / "SEED-Bench.json" if path.is_dir() else path
    content = read_json_file(file)
    if not isinstance(content, dict) or not isinstance(content.get("questions"), list):
        raise UserError(f"{file}: expected SEED-Bench's {{questions: [...], question_type: {{}}}}")
    types = content.get("question_type") or {}
    require_keys(types, (), f"{file}: question_type")
    names = {
        to_name(number, f"{file}: question_type: {name}"): name for name, number in types.items()
    }
    return [
        _make_question(record, names, None, f"{file}, question {number}")
        for number, record in enumerate(content["questions"])
    ]


def is_right_llava15(text: str, letter: str) -> bool:
    """LLaVA's rule: the letter and nothing else."""
    return text == letter


def is_right_lmms_eval(text: str, letter: str) -> bool:
    """lmms-eval's rule: the first character, case apart."""
    return text.strip()[:1].lower() == letter.lower()


RULES: Mapping[Profile, Callable[[str, str], bool]] = {
    "llava15": is_right_llava15,
    "lmms_eval": is_right_lmms_eval,
}


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy where the references are known. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions)
    is_right = RULES[profile]
    known = [question for question in questions if question.reference is not None]
    credits = {}
    for question in known:
        text = joined.text(id_key(question))
        credits[id_key(question)] = float(text is not None and is_right(text, question.reference))
    of_type = {kind: [q for q in known if q.metadata["data_type"] == kind] for kind in _COUNTS}
    without_video = bool(of_type["video"]) and not _count_answered(of_type["video"], joined)
    counted = ", ".join(f"{kind} {len(listed):,}" for kind, listed in of_type.items())
    foreign = find_foreign_prompts(known, joined)
    is_whole = {kind: len(listed) for kind, listed in of_type.items()} == _COUNTS
    notes = [
        "" if is_whole or not known else f"questions: {counted}; v1 has 14,233 and 5,009",
        "no video question has an answer: image questions only, no `accuracy` over all"
        if without_video
        else "",
        "" if known else "no references in these annotations: no score",
        name_keys(foreign, "{} answer(s) whose prompt does not contain their question"),
        *joined.notes,
    ]
    metrics = {} if without_video or not known else {"accuracy": percent(credits.values())}
    for kind, listed in of_type.items():
        if listed and not (kind == "video" and without_video):
            metrics[f"accuracy_{kind}"] = percent(credits[id_key(q)] for q in listed)
    types = {id_key(q): q.category for q in known if q.category}
    metrics |= {name: percent(values) for name, values in group_credits(credits, types).items()}
    groups = {"accuracy": ""}
    return joined.make_result(
        "seed_bench", profile, metrics, credits, notes, scale=100, groups=groups
    )


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `seed_bench_upload.jsonl`; a missing answer is empty."""
    joined = join_predictions(questions, predictions)
    lines = [
        {"question_id": q.question_id, "prediction": joined.text(id_key(q)) or ""}
        for q in questions
    ]
    content = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
    write_atomic(folder / "seed_bench_upload.jsonl", content)
    return folder / "seed_bench_upload.jsonl"


def _count_answered(questions: Sequence[Question], joined: Joined) -> int:
    return sum(joined.text(id_key(question)) is not None for question in questions)


def _make_question(
    record: Mapping[str, Any], names: Mapping[str, str], image: str | None, where: str
) -> Question:
    require_keys(record, _KEYS, where)
    question = to_text(record["question"], f"{where}: question")
    choices = [to_text(record[key], f"{where}: {key}") for key in _CHOICES]
    lines = [f"{letter}. {text}" for letter, text in zip(_LETTERS, choices, strict=True)]
    answer = record.get("answer")
    kind = to_name(record.get("question_type_id"), f"{where}: question_type_id")
    if record["data_type"] not in list(_COUNTS):
        found = repr(record["data_type"])
        raise UserError(f"{where}: data_type: expected image or video, found {found}")
    return Question(
        question_id=to_id(record["question_id"], f"{where}: question_id"),
        text="\n".join([question, *lines]) + SUFFIX,
        images=(image or _find_image(record),),
        reference=None if answer is None else to_letter(answer, _LETTERS, f"{where}: answer"),
        category=names.get(kind, f"type_{kind}") if kind else "",
        metadata={"question": question, "data_type": record["data_type"]},
    )


def _find_image(record: Mapping[str, Any]) -> str:
    if record["data_type"] == "video":
        return f"{_FRAMES}/{record.get('question_type_id')}_{record['question_id']}.png"
    return f"SEED-Bench-image/{record.get('data_id', record['question_id'])}"


def _from_llava(record: Mapping[str, Any], where: str) -> Question:
    require_keys(record, ("question_id", "image", "text"), where)
    text = to_text(record["text"], f"{where}: text")
    image = to_text(record["image"], f"{where}: image")
    kind = "video" if _FRAMES in image else "image"
    question = text.partition("\nA. ")[0]
    metadata = {"question": question, "data_type": kind}
    key = to_id(record["question_id"], f"{where}: question_id")
    return Question(key, text, (image,), None, metadata=metadata)


def _load_parquet(file: Path) -> list[Question]:
    optional = ("answer", "data_id", "question_type_id")
    return [
        _make_question(row, {}, parquet_image(file, index, "image"), f"{file}, row {index}")
        for index, row in enumerate(read_parquet(file, _KEYS, optional))
    ]


BENCHMARK = Benchmark(
    name="seed_bench",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 1024, "lmms_eval": 1024},
    write_submission=write_submission,
)
