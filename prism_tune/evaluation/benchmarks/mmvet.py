r"""MM-Vet: 218 open questions that need several capabilities at once, graded by a judge.

Source: yuweihao/MM-Vet release v1, `mm-vet.json` and images/; a judge's grade file; LLaVA's
    answers llava-mm-vet (ids without "v1_"); or the hub's parquet.
Schema: {"v1_<i>": {imagename, question, answer (with <AND> and <OR>), imagesource, capability:
    [rec, ocr, know, gen, spat, math]}}. Grades: see `grades.py`.
Annotations: `mm-vet.json`, a grade file, or a folder holding both (told apart by their content).
Predictions: LLaVA's answer jsonl, the official {"v1_<i>": text}, or grade files, which go before
    grades beside the questions; several are runs of one judge.
Prompt: llava15: the question alone. lmms_eval: a line asking for step-by-step reasoning first.
Decoding: greedy, 1,024 new tokens.
Metric, with grades: `score`, the mean grade x 100, by capability (a question counts for each of
    its capabilities) and by capability set; mean over the judge's runs, `score_std` over them
    (population). Unrounded; the official table shows one decimal.
Metric, without grades: the same under `score_rule`, `rec_rule`, ...: normalised text, the share of
    <AND> parts contained in the answer, the best of the <OR> alternatives. Not comparable with
    grades. Provenance names the judge ("rule" here); Rel. is only computed within one judge, and
    grades of several are refused.
Missing answers, and questions without a grade where mm-vet.json is given: 0.
Submission: `mmvet.json`, {"v1_<i>": text}, what the official grader reads.
Deviations: other judges grade the same answers differently (31.1 by gpt-4-0613 in 2023, 27.9 by
    the official space in 2025); lmms-eval uses gpt-4o-2024-11-20 and another header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_json_file,
    read_parquet,
    require_keys,
    to_id,
    to_list,
    to_text,
)
from prism_tune.evaluation.answer_files import read_whole
from prism_tune.evaluation.benchmark import GRADE, Benchmark
from prism_tune.evaluation.benchmarks.grades import (
    FAILED,
    Grades,
    is_grades,
    judge_grades,
    parse_grades,
)
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.benchmarks.vqa_text import normalize_m4c
from prism_tune.evaluation.metrics import mean
from prism_tune.evaluation.predictions import (
    Joined,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.run.folder import write_json
from prism_tune.schema import BenchmarkResult, Prediction, Question

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
REASONING = (
    "First please perform reasoning, and think step by step to provide best answer to the "
    "following question: \n\n"
)
_NUM_QUESTIONS = 218
Total = Callable[[Sequence[str]], float]


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of mm-vet.json, with the grades beside it; or bare ids from a grade file alone.

    Raises:
        UserError: none of these files, or several grade files.
    """
    parquet = find_parquet(path, "test")
    if parquet:
        return [question for file in parquet for question in _load_parquet(file, profile)]
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    contents = {file: read_json_file(file) for file in files}
    grade_files = [file for file, content in contents.items() if is_grades(content)]
    question_files = [file for file, content in contents.items() if _is_questions(content)]
    if len(grade_files) > 1 or len(question_files) > 1:
        named = ", ".join(file.name for file in (*grade_files, *question_files))
        raise UserError(f"{path}: expected one grade file and one mm-vet.json, found {named}")
    if not grade_files and not question_files:
        raise UserError(f"{path}: neither mm-vet.json nor a grade file {{id: {{score: [...]}}}}")
    grades: Mapping[str, Any] = contents[grade_files[0]] if grade_files else {}
    if grade_files:
        parse_grades(grades, grade_files[0])
    entries = contents[question_files[0]] if question_files else dict.fromkeys(grades)
    unknown = name_keys([key for key in grades if key not in entries], "{} unknown id(s)")
    if unknown:
        raise UserError(f"{grade_files[0]}: grades that mm-vet.json has no question for: {unknown}")
    return [_make_question(key, entries[key], grades.get(key), profile) for key in entries]


def read_answers(path: Path) -> list[Prediction]:
    """Answers in LLaVA's format, as {id: text}, or a grade file (answers without text).

    Raises:
        UserError: none of these.
    """
    content: Any = read_whole(path) if path.suffix == ".json" else None
    if is_grades(content):
        parse_grades(content, path)
        return [Prediction(key, "", "", metadata={GRADE: e}) for key, e in content.items()]
    return read_predictions(path)


def own_questions(predictions: Sequence[Prediction]) -> list[Question]:
    """The graded questions of grade files: their ids alone, without capabilities."""
    return [
        _make_question(str(answer.question_id), None, answer.metadata[GRADE], "llava15")
        for answer in _join_runs(predictions)
        if answer.metadata.get(GRADE)
    ]


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """The judge's score where there are grades, else the rule score, labelled as such.

    Raises:
        UserError: nothing can be joined, grades of several judges, or of a run none has a number.
    """
    joined = join_answers(questions, _join_runs(predictions))
    grades = _find_grades(questions, joined)
    keys = [id_key(question) for question in questions]
    notes = list(joined.notes)
    if len(questions) != _NUM_QUESTIONS:
        notes.insert(0, f"{len(questions)} questions; MM-Vet has {_NUM_QUESTIONS}")
    if grades is None:
        credits = {id_key(q): _score_rule(q, joined) for q in questions}
        metrics = _compute_metrics(
            questions, lambda ids: 100 * mean(credits[key] for key in ids), "_rule"
        )
        judge, runs = "rule", []
        notes.append("rule score: not comparable with a judge's")
    else:
        credits = {key: mean(grades.scores.get(key, (0.0,))) for key in keys}
        metrics = _compute_metrics(questions, grades.total, "")
        metrics = {"score": metrics["score"], "score_std": grades.deviation(keys), **metrics}
        judge, runs = ", ".join(grades.judges) or "unnamed", grades.total_per_run(keys)
        ungraded = [key for key in keys if key not in grades.scores]
        notes += [name_keys(ungraded, "{} question(s) without a grade")]
        notes += [name_keys([key for key in keys if key in grades.failed], FAILED)]
        if not questions[0].metadata["capabilities"]:
            notes.append("no mm-vet.json: no scores by capability")
    return joined.make_result(
        *("mmvet", profile, metrics, credits, notes),
        scale=100,
        judge=judge,
        score_per_run=runs,
        groups={"score": ""},
    )


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `mmvet.json` for the official grader; a missing answer is empty."""
    joined = join_answers(questions, predictions)
    write_json(folder / "mmvet.json", {id_key(q): joined.text(id_key(q)) or "" for q in questions})
    return folder / "mmvet.json"


def score_rule(answer: str, reference: str) -> float:
    """The best <OR> alternative's share of <AND> parts that occur in the answer, normalised."""
    text = f" {normalize_m4c(answer)} "
    alternatives = [
        [normalize_m4c(part) for part in alternative.split("<AND>")]
        for alternative in reference.split("<OR>")
    ]
    return max(mean(bool(part) and f" {part} " in text for part in parts) for parts in alternatives)


def _score_rule(question: Question, joined: Joined) -> float:
    text = joined.text(id_key(question))
    return 0.0 if text is None else score_rule(text, question.reference)


def _compute_metrics(questions: Sequence[Question], total: Total, suffix: str) -> dict[str, float]:
    metrics = {f"score{suffix}": total([id_key(question) for question in questions])}
    for capability in CAPABILITIES:
        ids = [id_key(q) for q in questions if capability in q.metadata["capabilities"]]
        if ids:
            metrics[f"{capability}{suffix}"] = total(ids)
    sets = sorted({q.metadata["capabilities"] for q in questions if q.metadata["capabilities"]})
    for capabilities in sets:
        ids = [id_key(q) for q in questions if q.metadata["capabilities"] == capabilities]
        metrics[f"set_{'_'.join(capabilities)}{suffix}"] = total(ids)
    return metrics


def _find_grades(questions: Sequence[Question], joined: Joined) -> Grades | None:
    """Grades from the predictions, or from beside the questions."""
    graded = {key: answer.metadata.get(GRADE) for key, answer in joined.answers.items()}
    entries = {key: entry for key, entry in graded.items() if entry}
    if not entries:
        entries = {id_key(q): q.metadata[GRADE] for q in questions if q.metadata.get(GRADE)}
    return judge_grades(entries) if entries else None


def _join_runs(predictions: Sequence[Prediction]) -> list[Prediction]:
    """An answer that several grade files grade as one, with the runs of all."""
    joined: dict[str, Prediction] = {}
    others = []
    for answer in predictions:
        entry = answer.metadata.get(GRADE)
        if not entry:
            others.append(answer)
            continue
        before = joined.get(id_key(answer))
        if before is not None:
            earlier = before.metadata[GRADE]
            keys = ("model", "content", "score")
            entry = {key: [*earlier.get(key, []), *entry.get(key, [])] for key in keys}
        joined[id_key(answer)] = replace(answer, metadata={GRADE: entry})
    return [*others, *joined.values()]


def join_answers(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Joined:
    """Answers by question id; LLaVA's ids lack the "v1_".

    Raises:
        UserError: nothing can be joined.
    """
    known = {id_key(question) for question in questions}

    def key_of(prediction: Prediction) -> str:
        key = id_key(prediction)
        return key if key in known else f"v1_{key}"

    return join_predictions(questions, predictions, prediction_key=key_of)


def _is_questions(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(e, Mapping) and "capability" in e for e in content.values())
    )


def _make_question(key: str, entry: Any, grade: Any, profile: Profile) -> Question:
    if entry is None:
        metadata = {"question": "", "capabilities": (), GRADE: grade}
        return Question(key, "", (), None, metadata=metadata)
    where = f"mm-vet.json, {key}"
    require_keys(entry, ("imagename", "question", "answer", "capability"), where)
    question = to_text(entry["question"], f"{where}: question")
    needed = to_list(entry["capability"], f"{where}: capability")
    if not all(name in CAPABILITIES for name in needed):
        expected = ", ".join(CAPABILITIES)
        raise UserError(f"{where}: capability: expected some of {expected}, found {needed!r}")
    return Question(
        question_id=key,
        text=_make_prompt(question, profile),
        images=(to_text(entry["imagename"], f"{where}: imagename"),),
        reference=to_text(entry["answer"], f"{where}: answer"),
        metadata={
            "question": question,
            "capabilities": tuple(c for c in CAPABILITIES if c in needed),
            GRADE: grade,
        },
    )


def _make_prompt(question: str, profile: Profile) -> str:
    return REASONING + question if profile == "lmms_eval" else question


def _load_parquet(file: Path, profile: Profile) -> list[Question]:
    questions = []
    columns = ("question_id", "question", "answer", "capability")
    for index, row in enumerate(read_parquet(file, columns)):
        listed = row["capability"]
        capability = [c.strip() for c in listed.split(",")] if isinstance(listed, str) else listed
        image = parquet_image(file, index, "image")
        entry = {**row, "imagename": image, "capability": capability}
        key = str(to_id(row["question_id"], f"{file}, row {index}: question_id"))
        questions.append(_make_question(key, entry, None, profile))
    return questions


BENCHMARK = Benchmark(
    name="mmvet",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 1024, "lmms_eval": 1024},
    write_submission=write_submission,
    own_questions=own_questions,
)
