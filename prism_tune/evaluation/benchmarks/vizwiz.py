r"""VizWiz-VQA: questions asked by blind people about their own photographs.

Source: vizwiz.org, Annotations.zip: `val.json` (4,319; scored here) and `test.json` (8,000;
    answers withheld, scored by the EvalAI server); LLaVA's `llava_test.jsonl` of the test split;
    or the hub's parquet {question_id, question, answers, category, image}.
Schema: list of {image, question, answers: 10 x {answer, answer_confidence}, answer_type,
    answerable}; LLaVA's: {question_id (row), image, text, category}.
Ids: the row, as LLaVA numbers them; an answer may also name the image, with or without ".jpg".
Predictions: LLaVA's answer jsonl, or an upload list of {image, answer} (its answers are normalised
    already, so that `accuracy` of it is LLaVA's route).
Prompt: question.capitalize() (which lower-cases the rest) +
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'." +
    "\nAnswer the question using a single word or phrase."; both profiles.
Decoding: greedy; 128 new tokens (lmms_eval: 1,024).
Parsing and metric: mean over the 10 answers of min(1, matches among the other 9 / 3), in percent.
    llava15: the VizWiz API's rule: the answer is normalised, the references are compared as they
    stand. lmms_eval: both are M4C-normalised. `accuracy_m4c_first` (llava15 only) is the API's
    rule on M4C-normalised answers: what the server gives LLaVA's upload.
    Also by answer type, and the share of answers "unanswerable".
Missing answers: wrong.
Submission: `vizwiz_upload.json`, list of {image, answer (M4C-normalised)}, as LLaVA uploads it.
Deviations: the VQAv2 API normalises both sides unless the 10 answers agree, TextVQA always does:
    "Unanswerable" against 10 x "unanswerable" is 1.0 here and 0.0 under VQAv2.
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
    require_keys,
    to_id,
    to_list,
    to_name,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.benchmarks.vqa_text import (
    credit_m4c_both,
    match_answer,
    normalize_m4c,
    normalize_vizwiz,
)
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import (
    Joined,
    find_foreign_prompts,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.run.folder import write_json
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    "\nAnswer the question using a single word or phrase."
)
Credit = Callable[[str, Sequence[str]], float]


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of val.json or test.json, LLaVA's test jsonl, or the hub's parquet.

    Raises:
        UserError: not one of these files.
    """
    if find_parquet(path, "val"):
        return _load_parquet(path)
    records = read_objects(path / "val.json" if path.is_dir() else path)
    return [
        _from_llava(record, where) if "text" in record else _from_official(row, record, where)
        for row, (where, record) in enumerate(records)
    ]


def credit_vizwiz(answer: str, references: Sequence[str]) -> float:
    """The VizWiz API: the answer normalised, the references as they stand."""
    return match_answer(normalize_vizwiz(answer), references)


def credit_m4c_first(answer: str, references: Sequence[str]) -> float:
    """LLaVA's route: M4C before the upload, then the VizWiz API."""
    return credit_vizwiz(normalize_m4c(answer), references)


CREDITS: Mapping[Profile, Credit] = {"llava15": credit_vizwiz, "lmms_eval": credit_m4c_both}


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy where the references are known; otherwise no metric and a note.

    Raises:
        UserError: nothing can be joined, or most answers are about other questions.
    """
    joined = _join(questions, predictions)
    notes = [*joined.notes, *_check_prompts(questions, joined)]
    with_reference = [question for question in questions if question.reference is not None]
    credits = _credit_all(with_reference, joined, CREDITS[profile])
    metrics: dict[str, float] = {}
    if with_reference:
        metrics["accuracy"] = percent(credits.values())
        if profile == "llava15":
            routed = _credit_all(with_reference, joined, credit_m4c_first)
            metrics["accuracy_m4c_first"] = percent(routed.values())
        metrics |= _split_metrics(with_reference, credits)
    else:
        notes.append(
            "no references in these annotations (test split): no score; send the upload file "
            "written by --output to the EvalAI server"
        )
    answers = [normalize_vizwiz(answer.text) for answer in joined.answers.values()]
    if metrics:
        metrics["unanswerable_rate"] = percent(float(a == "unanswerable") for a in answers)
    groups = {"accuracy": ""}
    return joined.make_result("vizwiz", profile, metrics, credits, notes, scale=100, groups=groups)


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `vizwiz_upload.json` for the EvalAI server; a missing answer is uploaded empty."""
    joined = _join(questions, predictions)
    upload = [
        {
            "image": question.metadata["image"],
            "answer": normalize_m4c(joined.text(id_key(question)) or ""),
        }
        for question in questions
    ]
    write_json(folder / "vizwiz_upload.json", upload)
    return folder / "vizwiz_upload.json"


def _join(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Joined:
    by_image = {_stem(question.metadata["image"]): id_key(question) for question in questions}

    def key_of(prediction: Prediction) -> str:
        return by_image.get(_stem(str(prediction.question_id)), id_key(prediction))

    return join_predictions(questions, predictions, prediction_key=key_of)


def _stem(image: str) -> str:
    return image.removesuffix(".jpg")


def _check_prompts(questions: Sequence[Question], joined: Joined) -> list[str]:
    foreign = find_foreign_prompts(questions, joined)
    if 2 * len(foreign) > len(joined.answers):
        raise UserError(
            f"vizwiz: {len(foreign)} of {len(joined.answers)} answers have a prompt without the "
            f"question of their id, first {foreign[0]}; is this the answer file of another split?"
        )
    note = name_keys(foreign, "{} answer(s) whose prompt does not contain the question of their id")
    return [note] if note else []


def _credit_all(questions: Sequence[Question], joined: Joined, credit: Credit) -> dict[str, float]:
    texts = {id_key(question): joined.text(id_key(question)) for question in questions}
    return {
        id_key(question): 0.0 if text is None else credit(text, question.reference)
        for question, text in zip(questions, texts.values(), strict=True)
    }


def _split_metrics(questions: Sequence[Question], credits: Mapping[str, float]) -> dict[str, float]:
    types = {id_key(q): q.category for q in questions if q.category}
    by_type = group_credits(credits, types)
    named = {kind.replace("/", "_"): percent(values) for kind, values in by_type.items()}
    answerable = [credits[id_key(q)] for q in questions if q.metadata.get("answerable") == 1]
    metrics = {f"accuracy_{kind}": value for kind, value in named.items()}
    return {**metrics, **({"accuracy_answerable": percent(answerable)} if answerable else {})}


def _from_llava(record: Mapping[str, Any], where: str) -> Question:
    require_keys(record, ("question_id", "image", "text"), where)
    text = to_text(record["text"], f"{where}: text")
    question, image = text.removesuffix(SUFFIX), to_text(record["image"], f"{where}: image")
    return Question(
        question_id=to_id(record["question_id"], f"{where}: question_id"),
        text=text,
        images=(image,),
        reference=None,
        metadata={"question": question, "image": image},
    )


def _from_official(row: int, record: Mapping[str, Any], where: str) -> Question:
    require_keys(record, ("image", "question"), where)
    question = to_text(record["question"], f"{where}: question")
    image = to_text(record["image"], f"{where}: image")
    return Question(
        question_id=row,
        text=question.capitalize() + SUFFIX,
        images=(image,),
        reference=_read_answers(record.get("answers"), where),
        category=to_name(record.get("answer_type"), f"{where}: answer_type"),
        metadata={"question": question, "image": image, "answerable": record.get("answerable")},
    )


def _read_answers(answers: Sequence[Any] | None, where: str) -> list[str] | None:
    """The texts of the answers, which may be objects with a key `answer`; None where withheld."""
    if not answers:
        return None
    for answer in to_list(answers, f"{where}: answers"):
        if isinstance(answer, Mapping):
            require_keys(answer, ("answer",), f"{where}, answers")
    texts = [answer["answer"] if isinstance(answer, Mapping) else answer for answer in answers]
    return [to_text(text, f"{where}: answers") for text in texts]


def _load_parquet(path: Path) -> list[Question]:
    questions: list[Question] = []
    for file in find_parquet(path, "val"):
        columns = ("question_id", "question")
        for index, row in enumerate(read_parquet(file, columns, ("answers", "category"))):
            where = f"{file}, row {index}"
            question = to_text(row["question"], f"{where}: question")
            name = to_text(row["question_id"], f"{where}: question_id")
            questions.append(
                Question(
                    question_id=len(questions),
                    text=question.capitalize() + SUFFIX,
                    images=(parquet_image(file, index, "image"),),
                    reference=_read_answers(row.get("answers"), where),
                    category=to_name(row.get("category"), f"{where}: category"),
                    metadata={"question": question, "image": f"{_stem(name)}.jpg"},
                )
            )
    return questions


BENCHMARK = Benchmark(
    name="vizwiz",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 1024},
    write_submission=write_submission,
)
