r"""VQAv2: short questions about COCO images, ten answers each.

Source: visualqa.org, `v2_mscoco_val2014_annotations.json` and
    `v2_OpenEnded_mscoco_val2014_questions.json` (scored here); LLaVA's question files
    `llava_vqav2_mscoco_test-dev2015.jsonl` (107,394) and `..._test2015.jsonl` (447,793), whose
    answers are withheld and scored by the EvalAI server; or the hub's parquet.
Schema: {"annotations": [{question_id, image_id, question_type, answer_type, answers: 10 x {answer,
    answer_confidence, answer_id}}]}, {"questions": [{question_id, image_id, question}]}; LLaVA's:
    {question_id, image, text, category}. Questions and annotations may be a folder with both, or
    one of them with the other beside it.
Predictions: LLaVA's answer jsonl, or an upload list of {question_id, answer}.
Prompt: question + "\nAnswer the question using a single word or phrase."; both profiles.
Decoding: greedy, 128 new tokens (lmms_eval: 16).
Metric: `accuracy`, by answer type and by question type, in percent: mean over the ten references of
    min(1, matches among the others / 3). llava15 is the official `vqaEval.py`: answer and
    references have line breaks and tabs made spaces, and are normalised only where the ten are not
    unanimous ("Yes" against 10 x "yes" is 0.0). lmms_eval: always normalised. "Others" are those
    that differ in any field, so that entries without `answer_id` vanish together.
    `accuracy_upload` is the official rule on the upload file, which LLaVA's numbers are of.
Missing answers: wrong.
Submission: `vqav2_upload.json`, list of {question_id, answer}, M4C-normalised, for every question
    of the annotations (the server wants all of test2015); a missing answer is "".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    find_parquet,
    parquet_image,
    read_json_file,
    read_objects,
    read_parquet,
    require_keys,
    to_list,
    to_number,
    to_optional_text,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.vqa_text import (
    flatten,
    match_answer,
    normalize_m4c,
    normalize_vizwiz,
)
from prism_tune.evaluation.metrics import group_credits, mean, percent
from prism_tune.evaluation.predictions import (
    find_foreign_prompts,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.run.folder import write_json
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer the question using a single word or phrase."
Reference = tuple[str, Any, Any]
"""A reference's answer, confidence and id: what tells it from the others."""


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of the official files, LLaVA's question files, or the hub's parquet.

    Raises:
        UserError: none of these, or annotations of a question that is not there.
    """
    if not path.is_dir() and path.suffix == ".jsonl":
        return [_from_llava(record, where) for where, record in read_objects(path)]
    if find_parquet(path):
        return [question for file in find_parquet(path) for question in _load_parquet(file)]
    annotations, questions = _find_files(path)
    listed = {} if annotations is None else _read_list(annotations, "annotations")
    asked = {} if questions is None else _read_list(questions, "questions")
    subset = "" if questions is None else questions.stem.split("mscoco_")[-1].split("_")[0]
    unknown = [key for key in listed if asked and key not in asked]
    if unknown:
        raise UserError(f"{annotations}: question {unknown[0]} is not in {questions}")
    return [
        _from_official(key, asked.get(key, {}), listed.get(key, {}), subset)
        for key in (asked or listed)
    ]


def credit_official(answer: str, references: Sequence[Reference]) -> float:
    """`vqaEval.py`: normalised on both sides, but only where the references differ."""
    flat = [(flatten(text), *rest) for text, *rest in references]
    if len({text for text, *_ in flat}) == 1:
        return _match(flatten(answer), flat)
    return credit_normalized(answer, references)


def credit_normalized(answer: str, references: Sequence[Reference]) -> float:
    """lmms-eval: normalised on both sides."""
    normalized = [(normalize_vizwiz(text), *rest) for text, *rest in references]
    return _match(normalize_vizwiz(answer), normalized)


CREDITS: Mapping[Profile, Callable[[str, Sequence[Reference]], float]] = {
    "llava15": credit_official,
    "lmms_eval": credit_normalized,
}


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy where the references are known; otherwise no metric and a note.

    Raises:
        UserError: nothing can be joined.
    """
    joined = join_predictions(questions, predictions)
    known = [question for question in questions if question.reference is not None]
    credit, credits, uploaded = CREDITS[profile], {}, []
    for question in known:
        text, references = joined.text(id_key(question)), question.reference
        credits[id_key(question)] = 0.0 if text is None else credit(text, references)
        uploaded.append(credit_official(normalize_m4c(text or ""), references))
    foreign = find_foreign_prompts(known, joined) if known and known[0].text else []
    notes = [
        *joined.notes,
        name_keys(foreign, "{} answer(s) whose prompt does not contain their question"),
        ""
        if known
        else "no references in these annotations (test split): no score; send the "
        "upload file written by --output to the EvalAI server",
    ]
    metrics: dict[str, float] = {}
    if known:
        metrics = {"accuracy": percent(credits.values()), "accuracy_upload": percent(uploaded)}
        metrics |= _split_metrics(known, credits)
    groups = {"accuracy": ""}
    return joined.make_result("vqav2", profile, metrics, credits, notes, scale=100, groups=groups)


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `vqav2_upload.json` for the EvalAI server; a missing answer is uploaded empty."""
    joined = join_predictions(questions, predictions)
    upload = [
        {"question_id": q.question_id, "answer": normalize_m4c(joined.text(id_key(q)) or "")}
        for q in questions
    ]
    write_json(folder / "vqav2_upload.json", upload)
    return folder / "vqav2_upload.json"


def _match(answer: str, references: Sequence[tuple[Any, ...]]) -> float:
    texts = [text for text, *_ in references]
    if len(set(references)) == len(references):
        return match_answer(answer, texts)
    others = ([r for r in references if r != own] for own in references)
    return mean(min(1.0, sum(r[0] == answer for r in listed) / 3) for listed in others)


def _split_metrics(questions: Sequence[Question], credits: Mapping[str, float]) -> dict[str, float]:
    answer_types = {id_key(q): q.category for q in questions if q.category}
    question_types = {id_key(q): q.metadata["question_type"] for q in questions}
    metrics = {}
    for prefix, groups in (("accuracy", answer_types), ("type", question_types)):
        named = {key: kind for key, kind in groups.items() if kind}
        for kind, values in sorted(group_credits(credits, named).items()):
            metrics[f"{prefix}_{kind.replace('/', '_').replace(' ', '_')}"] = percent(values)
    return metrics


def _find_files(path: Path) -> tuple[Path | None, Path | None]:
    """Annotations and questions: the two of a folder, or the given one and the other beside it."""
    folder = path if path.is_dir() else path.parent
    found = {kind: sorted(folder.glob(f"v2_*{kind}.json")) for kind in ("annotations", "questions")}
    if path.is_dir():
        for kind, files in found.items():
            if len(files) > 1 or not any(found.values()):
                raise UserError(f"{path}: expected one v2_*{kind}.json, found {len(files)}")
        return next(iter(found["annotations"]), None), next(iter(found["questions"]), None)
    content = read_json_file(path)
    if not isinstance(content, dict) or not content.keys() & {"annotations", "questions"}:
        raise UserError(f"{path}: expected VQAv2's {{annotations: [...]}} or {{questions: [...]}}")
    own = "annotations" if "annotations" in content else "questions"
    other = "questions" if own == "annotations" else "annotations"
    subset = path.stem.split("mscoco_")[-1].split("_")[0]
    beside = next((file for file in found[other] if f"mscoco_{subset}_" in file.name), None)
    return (path, beside) if own == "annotations" else (beside, path)


def _read_list(file: Path, kind: str) -> dict[str, Mapping[str, Any]]:
    content = read_json_file(file)
    records = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise UserError(f"{file}: expected VQAv2's {{{kind}: [...]}}")
    for number, record in enumerate(records):
        require_keys(record, ("question_id",), f"{file}, {kind} {number}")
    return {str(record["question_id"]): record for record in records}


def _from_official(
    key: str, asked: Mapping[str, Any], annotation: Mapping[str, Any], subset: str
) -> Question:
    where = f"question {key}"
    record = {**annotation, **asked}
    question = to_text(record["question"], where) if "question" in record else ""
    split = subset.replace("test-dev", "test") or "val2014"
    image_id = to_number(record.get("image_id", 0), f"{where}: image_id")
    image = f"COCO_{split}_{image_id:012d}.jpg"
    return _make_question(record, question, image, where)


def _make_question(record: Mapping[str, Any], question: str, image: str, where: str) -> Question:
    return Question(
        question_id=record["question_id"],
        text=question + SUFFIX if question else "",
        images=(image,),
        reference=_read_answers(record.get("answers"), where),
        category=to_optional_text(record.get("answer_type"), f"{where}: answer_type"),
        metadata={
            "question": question,
            "question_type": to_optional_text(
                record.get("question_type"), f"{where}: question_type"
            ),
        },
    )


def _read_answers(answers: Any, where: str) -> list[Reference] | None:
    if not answers:
        return None
    for answer in to_list(answers, f"{where}: answers"):
        require_keys(answer, ("answer",), f"{where}, answers")
        for key in ("answer_confidence", "answer_id"):
            to_optional_text(answer.get(key), f"{where}, answers: {key}")
    return [
        (to_text(a["answer"], f"{where}: answers"), a.get("answer_confidence"), a.get("answer_id"))
        for a in answers
    ]


def _from_llava(record: Mapping[str, Any], where: str) -> Question:
    require_keys(record, ("question_id", "image", "text"), where)
    text = to_text(record["text"], f"{where}: text").removesuffix(SUFFIX)
    return _make_question({"question_id": record["question_id"]}, text, record["image"], where)


def _load_parquet(file: Path) -> list[Question]:
    columns = ("question_id", "question")
    optional = ("answers", "answer_type", "question_type")
    return [
        _make_question(
            row,
            to_text(row["question"], f"{file}, row {index}"),
            parquet_image(file, index, "image"),
            f"{file}, row {index}",
        )
        for index, row in enumerate(read_parquet(file, columns, optional))
    ]


BENCHMARK = Benchmark(
    name="vqav2",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 16},
    write_submission=write_submission,
)
