r"""TextVQA (val): 5,000 questions about text in a photograph, ten answers each.

Source: textvqa.org, `TextVQA_0.5.1_val.json`; LLaVA's question file
    `llava_textvqa_val_v051_ocr.jsonl`; or the hub's parquet (with `ocr_tokens`).
Schema: {"data": [{image_id, question, answers (10), question_id, ...}]}; LLaVA's: {question_id
    (the image's id, which repeats), image, text, category}. A folder with both files asks LLaVA's
    texts and scores with the annotations.
Prompt: llava15: question + "\nReference OCR token: a, b, ..." +
    "\nAnswer the question using a single word or phrase."; the tokens are in LLaVA's question file
    or the hub's rows, the official annotations have none, and without them it is another number
    (`ocr_tokens` of the result says which). lmms_eval: question.capitalize() without tokens.
Decoding: greedy, 128 new tokens (lmms_eval: 1,024).
Join (`eval_textvqa.py`): image id and lower-cased question, which is taken out of the prompt:
    between "Question: " and " Short answer:" where it begins with "OCR tokens: "; of three lines
    with "Reference OCR token: " the first, or the second where the first is the tokens'; of two
    lines the first. An answer with TextVQA's own question id is joined by it.
Metric: M4C (`m4c_evaluator.py`), both profiles: answer and references M4C-normalised, mean over the
    references of min(1, matches among the other 9 / 3); `accuracy` in percent.
Missing answers: wrong (the official script leaves them out).
Submission: `textvqa_upload.json`, list of {question_id, answer (M4C-normalised)}.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.benchmarks.vqa_text import credit_m4c_both, normalize_m4c
from prism_tune.evaluation.metrics import percent
from prism_tune.evaluation.predictions import Joined, join_predictions, read_predictions
from prism_tune.run.folder import write_json
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer the question using a single word or phrase."
_TOKENS = "Reference OCR token: "
_OLD_TOKENS = "OCR tokens: "
_OLD_QUESTION = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
_NUM_QUESTIONS = 5000
_NUM_ANSWERS = 10
_KEY = "key"


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of the official annotations, LLaVA's file, a folder with both, or parquet.

    Raises:
        UserError: none of these, or not ten answers to a question.
    """
    if not path.is_dir() and path.suffix == ".jsonl":
        return _number([_from_llava(record, where) for where, record in read_objects(path)])
    parquet = find_parquet(path, "validation")
    if parquet:
        return _number([q for file in parquet for q in _load_parquet(file, profile)])
    files = sorted(path.glob("TextVQA_*val.json")) if path.is_dir() else [path]
    if len(files) != 1:
        raise UserError(f"{path}: expected one TextVQA_*val.json, found {len(files)}")
    content = read_json_file(files[0])
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise UserError(f"{files[0]}: expected TextVQA's {{data: [...]}}")
    listed = (
        sorted(path.glob("llava_textvqa_*.jsonl")) if path.is_dir() and profile == "llava15" else []
    )
    texts = {q.metadata[_KEY]: q.text for file in listed for q in load_questions(file, profile)}
    records = enumerate(content["data"])
    return _number([_from_official(r, f"{files[0]}, data {n}", texts, profile) for n, r in records])


def find_question(prompt: str) -> str | None:
    """The question in a prompt, lower-cased, as `eval_textvqa.py` takes it; None where it fails."""
    lines = prompt.split("\n")
    if prompt.startswith(_OLD_TOKENS):
        found = _OLD_QUESTION.search(prompt)
        return found[1].lower() if found else None
    if _TOKENS in prompt and len(lines) == 3:
        return lines[int(prompt.startswith(_TOKENS.strip()))].lower()
    return lines[0].lower() if len(lines) == 2 else None


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """M4C accuracy where the references are known; otherwise no metric and a note.

    Raises:
        UserError: nothing can be joined, or a prompt without a question.
    """
    joined = _join(questions, predictions)
    known = {question_key(q): q.reference for q in questions if q.reference is not None}
    texts = {key: joined.text(key) for key in known}
    credits = {
        key: 0.0 if text is None else credit_m4c_both(text, known[key])
        for key, text in texts.items()
    }
    with_tokens = _find_tokens(joined)
    notes = [
        "" if len(questions) == _NUM_QUESTIONS else f"{len(questions):,} questions; val has 5,000",
        "" if known else "no references in these annotations: no score",
        ""
        if with_tokens in ("with", "unknown")
        else f"asked {with_tokens} OCR tokens: not "
        "comparable with numbers of prompts that have them, such as LLaVA-1.5's",
        *joined.notes,
    ]
    return joined.make_result(
        *("textvqa", profile, {"accuracy": percent(credits.values())} if known else {}),
        credits,
        notes,
        scale=100,
        groups={"accuracy": ""},
        ocr_tokens=with_tokens,
    )


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `textvqa_upload.json` for the EvalAI server; a missing answer is uploaded empty."""
    joined = _join(questions, predictions)
    upload = [
        {
            "question_id": question.metadata["official_id"],
            "answer": normalize_m4c(joined.text(question_key(question)) or ""),
        }
        for question in questions
    ]
    write_json(folder / "textvqa_upload.json", upload)
    return folder / "textvqa_upload.json"


def question_key(question: Question) -> str:
    """Image id and question; where both repeat, also the place among the equal ones."""
    return str(question.metadata[_KEY])


def _join(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Joined:
    """Equal keys are paired in their order, as the official script scores every line."""
    official = {str(q.metadata["official_id"]): question_key(q) for q in questions}
    of_image: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        of_image[str(question.question_id)].append(question)
    known = {question_key(question) for question in questions}
    seen = Counter[str]()
    keys = {}
    for prediction in predictions:
        name = str(prediction.question_id)
        key = official.get(name, name)
        if name in of_image:
            key = f"{name}: {_find_asked(prediction, of_image[name])}"
            seen[key] += 1
        own = f"{key} ({seen[key]})"
        keys[id(prediction)] = own if own in known else key
    return join_predictions(questions, predictions, question_key, lambda p: keys[id(p)])


def _find_asked(prediction: Prediction, candidates: Sequence[Question]) -> str:
    found = find_question(prediction.prompt)
    if found is not None:
        return found
    prompt = prediction.prompt.lower()
    texts = [str(q.metadata["question"]).lower() for q in candidates]
    fitting = [t for t in texts if t in prompt] if prompt else texts
    if len(set(fitting)) == 1:
        return fitting[0]
    raise UserError(
        f"textvqa: answer {prediction.question_id}: no question to be found in its prompt "
        f"{prediction.prompt!r}; expected LLaVA's lines: question, {_TOKENS!r}, instruction"
    )


def _find_tokens(joined: Joined) -> str:
    """Whether the answers' prompts have OCR tokens: with, without, partly with, or unknown."""
    prompts = [answer.prompt for answer in joined.answers.values() if answer.prompt]
    having = [_TOKENS.strip() in p or p.startswith(_OLD_TOKENS) for p in prompts]
    if not prompts:
        return "unknown"
    return "with" if all(having) else "partly with" if any(having) else "without"


def _number(questions: Sequence[Question]) -> list[Question]:
    """The questions with keys of their own; of equal ones the last's references count for all."""
    last = {q.metadata[_KEY]: q.reference for q in questions}
    seen = Counter[str]()
    numbered = []
    for question in questions:
        key = question.metadata[_KEY]
        seen[key] += 1
        own = key if seen[key] == 1 else f"{key} ({seen[key]})"
        numbered.append(
            Question(
                question.question_id,
                question.text,
                question.images,
                last[key],
                metadata={**question.metadata, _KEY: own},
            )
        )
    return numbered


def _make_question(
    image_id: str, question: str, text: str, image: str, references: list[str] | None, official: Any
) -> Question:
    return Question(
        question_id=image_id,
        text=text,
        images=(image,),
        reference=references,
        metadata={
            "question": question,
            "official_id": official,
            _KEY: f"{image_id}: {question.lower()}",
        },
    )


def _make_prompt(question: str, tokens: Sequence[str] | None, profile: Profile) -> str:
    if profile == "lmms_eval":
        return question.capitalize() + SUFFIX
    return question + ("" if tokens is None else f"\n{_TOKENS}{', '.join(tokens)}") + SUFFIX


def _from_llava(record: Mapping[str, Any], where: str) -> Question:
    require_keys(record, ("question_id", "image", "text"), where)
    text = to_text(record["text"], f"{where}: text")
    image_id = str(to_id(record["question_id"], f"{where}: question_id"))
    question = find_question(text)
    if question is None:
        raise UserError(f"{where}: text: expected LLaVA's two or three lines, found {text!r}")
    return _make_question(image_id, question, text, record["image"], None, image_id)


def _from_official(
    record: Mapping[str, Any], where: str, texts: Mapping[str, str], profile: Profile
) -> Question:
    require_keys(record, ("image_id", "question"), where)
    image_id = str(to_id(record["image_id"], f"{where}: image_id"))
    question = to_text(record["question"], f"{where}: question")
    text = texts.get(f"{image_id}: {question.lower()}")
    if texts and text is None:
        raise UserError(f"{where}: image {image_id}, {question!r}: not in LLaVA's question file")
    return _make_question(
        *(image_id, question, text or _make_prompt(question, None, profile), f"{image_id}.jpg"),
        _read_answers(record.get("answers"), where),
        record.get("question_id", image_id),
    )


def _load_parquet(file: Path, profile: Profile) -> list[Question]:
    columns, optional = ("image_id", "question"), ("question_id", "answers", "ocr_tokens")
    questions = []
    for index, row in enumerate(read_parquet(file, columns, optional)):
        where, question = f"{file}, row {index}", to_text(row["question"], f"{file}, row {index}")
        listed = row.get("ocr_tokens")
        tokens = [] if listed is None else to_list(listed, f"{where}: ocr_tokens")
        texts = [to_text(token, f"{where}: ocr_tokens") for token in tokens]
        text = _make_prompt(question, None if listed is None else texts, profile)
        key = str(to_id(row["image_id"], f"{where}: image_id"))
        made = _make_question(
            *(key, question, text, parquet_image(file, index, "image")),
            _read_answers(row.get("answers"), where),
            row.get("question_id", key),
        )
        questions.append(made)
    return questions


def _read_answers(answers: Sequence[Any] | None, where: str) -> list[str] | None:
    if not answers or not any(to_list(answers, f"{where}: answers")):
        return None
    if len(answers) != _NUM_ANSWERS:
        raise UserError(f"{where}: answers: expected {_NUM_ANSWERS}, found {len(answers)}")
    return [to_text(answer, f"{where}: answers") for answer in answers]


BENCHMARK = Benchmark(
    name="textvqa",
    load_questions=load_questions,
    read_predictions=read_predictions,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 1024},
    write_submission=write_submission,
    credit_key=question_key,
)
