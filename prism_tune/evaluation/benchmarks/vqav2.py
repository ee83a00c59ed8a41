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

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_json_file,
    read_objects,
    read_parquet,
    require_keys,
    to_id,
    to_list,
    to_name,
    to_number,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
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
_OFFICIAL_IDS = list(range(1, 11))
Entry = tuple[str, str]
"""A reference's confidence and id: what tells it from another one of the same text."""


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of the official files, LLaVA's question files, or the hub's parquet.

    Raises:
        UserError: none of these, or annotations of a question that is not there.
    """
    if not path.is_dir() and path.suffix == ".jsonl":
        return [_from_llava(record, where) for where, record in read_objects(path)]
    if find_parquet(path, "validation"):
        return [
            question
            for file in find_parquet(path, "validation")
            for question in _load_parquet(file)
        ]
    given = None if path.is_dir() else read_json_file(path)
    annotations, questions = _find_files(path, given)
    listed, asked = (
        {} if file is None else _read_list(file, kind, given if file == path else None)
        for file, kind in ((annotations, "annotations"), (questions, "questions"))
    )
    subset = "" if questions is None else questions.stem.split("mscoco_")[-1].split("_")[0]
    unknown = [key for key in listed if asked and key not in asked]
    if unknown:
        raise UserError(f"{annotations}: question {unknown[0]} is not in {questions}")
    split, file = subset.replace("test-dev", "test") or "val2014", str(annotations or questions)
    return [
        _from_official({**listed.get(key, {}), **asked.get(key, {})}, split, f"{file}, {key}")
        for key in (asked or listed)
    ]


def make_comparable(
    references: Sequence[str], profile: Profile
) -> tuple[Callable[[str], str], list[str]]:
    """How an answer is normalised to be compared with these references, and they themselves.

    `vqaEval.py` normalises both sides only where the references differ, lmms-eval always.
    """
    flat = list(map(flatten, references))
    if profile != "lmms_eval" and flat.count(flat[0]) == len(flat):
        return flatten, flat
    return normalize_vizwiz, list(map(normalize_vizwiz, flat))


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy where the references are known; otherwise no metric and a note.

    Raises:
        UserError: nothing can be joined.
    """
    joined = join_predictions(questions, predictions)
    known = [question for question in questions if question.reference is not None]
    credits, uploaded = {}, []
    for question in known:
        key, entries = id_key(question), question.metadata["entries"]
        text = joined.text(key)
        normalize, references = make_comparable(question.reference, profile)
        credits[key] = 0.0 if text is None else _match(normalize(text), references, entries)
        if profile == "lmms_eval":
            normalize, references = make_comparable(question.reference, "llava15")
        sent = normalize(normalize_m4c(text or ""))
        uploaded.append(_match(sent, references, entries))
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


def _match(answer: str, references: Sequence[str], entries: Sequence[Entry] | None) -> float:
    """Mean over the references of min(1, matches among the others / 3)."""
    if entries is None:
        return match_answer(answer, references)
    listed = list(zip(references, entries, strict=True))
    others = ([r for r in listed if r != own] for own in listed)
    return mean(min(1.0, sum(text == answer for text, _ in rest) / 3) for rest in others)


def _split_metrics(questions: Sequence[Question], credits: Mapping[str, float]) -> dict[str, float]:
    answer_types = {id_key(q): q.category for q in questions if q.category}
    question_types = {id_key(q): q.metadata["question_type"] for q in questions}
    metrics = {}
    for prefix, groups in (("accuracy", answer_types), ("type", question_types)):
        named = {key: kind for key, kind in groups.items() if kind}
        for kind, values in sorted(group_credits(credits, named).items()):
            metrics[f"{prefix}_{kind.replace('/', '_').replace(' ', '_')}"] = percent(values)
    return metrics


def _find_files(path: Path, given: Any) -> tuple[Path | None, Path | None]:
    """Annotations and questions: the two of a folder, or the given one and the other beside it."""
    folder = path if path.is_dir() else path.parent
    found = {kind: sorted(folder.glob(f"v2_*{kind}.json")) for kind in ("annotations", "questions")}
    if path.is_dir():
        for kind, files in found.items():
            if len(files) > 1 or not any(found.values()):
                raise UserError(f"{path}: expected one v2_*{kind}.json, found {len(files)}")
        return next(iter(found["annotations"]), None), next(iter(found["questions"]), None)
    if not isinstance(given, dict) or not given.keys() & {"annotations", "questions"}:
        raise UserError(f"{path}: expected VQAv2's {{annotations: [...]}} or {{questions: [...]}}")
    own = "annotations" if "annotations" in given else "questions"
    other = "questions" if own == "annotations" else "annotations"
    subset = path.stem.split("mscoco_")[-1].split("_")[0]
    beside = next((file for file in found[other] if f"mscoco_{subset}_" in file.name), None)
    return (path, beside) if own == "annotations" else (beside, path)


def _read_list(file: Path, kind: str, given: Any) -> dict[str, Mapping[str, Any]]:
    content = read_json_file(file) if given is None else given
    records = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise UserError(f"{file}: expected VQAv2's {{{kind}: [...]}}")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or "question_id" not in record:
            require_keys(record, ("question_id",), f"{file}, {kind} {number}")
    keys = [str(to_id(record["question_id"], f"{file}: {kind}: question_id")) for record in records]
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise UserError(f"{file}: {kind}: question_id {twice} stands there twice; expected once")
    return dict(zip(keys, records, strict=True))


def _from_official(record: Mapping[str, Any], split: str, where: str) -> Question:
    question = to_text(record["question"], where) if "question" in record else ""
    image_id = to_number(record.get("image_id", 0), f"{where}: image_id")
    return _make_question(record, question, f"COCO_{split}_{image_id:012d}.jpg", where)


def _make_question(record: Mapping[str, Any], question: str, image: str, where: str) -> Question:
    references, entries = _read_answers(record.get("answers"), where)
    return Question(
        question_id=to_id(record["question_id"], f"{where}: question_id"),
        text=question + SUFFIX if question else "",
        images=(image,),
        reference=references,
        category=to_name(record.get("answer_type"), f"{where}: answer_type"),
        metadata={
            "question": question,
            "question_type": to_name(record.get("question_type"), f"{where}: question_type"),
            "entries": entries,
        },
    )


def _read_answers(answers: Any, where: str) -> tuple[list[str] | None, list[Entry] | None]:
    """The texts, and what else tells them apart where their ids do not."""
    if not answers:
        return None, None
    for answer in to_list(answers, f"{where}: answers"):
        if not isinstance(answer, dict) or "answer" not in answer:
            require_keys(answer, ("answer",), f"{where}: answers")
    texts = [answer["answer"] for answer in answers]
    if set(map(type, texts)) != {str}:
        texts = [to_text(text, f"{where}: answers") for text in texts]
    ids = [answer.get("answer_id") for answer in answers]
    if ids == _OFFICIAL_IDS or len(set(map(str, ids))) == len(ids):
        return texts, None
    confidences = [str(answer.get("answer_confidence")) for answer in answers]
    return texts, list(zip(confidences, map(str, ids), strict=True))


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
