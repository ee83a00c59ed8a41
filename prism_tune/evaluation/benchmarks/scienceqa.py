r"""ScienceQA: multiple-choice school science, half of it with an image.

Source: lupantech/ScienceQA, a folder with `problems.json` and `pid_splits.json`; or the hub's
    parquet (which has no problem ids: questions are then numbered by row).
Schema: problems.json {pid: {question, choices, answer (index), hint, image (null | "image.png"),
    subject, topic, ...}}; pid_splits.json {"test": 4,241 pids, ...}; images are
    `images/test/<pid>/image.png`. 2,017 test questions have an image.
Prompt: ("Context: " + hint + "\n" if there is a hint) + question + "\n" + lines "A. choice" +
    "\nAnswer with the option's letter from the given choices directly."; both profiles. A
    question without image carries no image token.
Decoding: greedy; 1,024 new tokens (lmms_eval: 16).
Parsing: llava15 (LLaVA `eval_science_qa.py`): exactly a letter A-E; else a letter followed by
    ". "; else exactly one "The answer is X." (X any capital, "." any character); else failed.
    Nothing is stripped, case matters: "A) x", "(A)" and "b" fail. A letter beyond the choices is
    wrong. lmms_eval: stripped; exactly the right letter in any case; else a capital followed by
    ".".
Predictions: LLaVA's answer jsonl, or the `_result.json` or `_output.json` of its script.
Metric: `accuracy` over all questions, `accuracy_image` over those with an image, and by subject,
    in percent.
Missing answers: wrong in both.
Deviations: the official script takes "with image" from the stored prompt, so that there a missing
    answer drops out of the image accuracy; here the dataset's own image field decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_json_file,
    read_parquet,
    require_files,
    require_keys,
    to_id,
    to_list,
    to_name,
    to_number,
    to_text,
)
from prism_tune.evaluation.answer_files import read_whole
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import (
    id_key,
    join_predictions,
    read_predictions,
)
from prism_tune.schema import BenchmarkResult, Prediction, Question

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
LETTERS = "ABCDE"
_NUM_QUESTIONS = 4241
_KEYS = ("question", "choices", "answer", "hint", "image")
_STATED = re.compile(r"The answer is ([A-Z]).")


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """The test questions in the order of `pid_splits.json`, or of the parquet's rows.

    Raises:
        UserError: a file or key is missing.
    """
    if not (path / "problems.json").exists() and find_parquet(path, "test"):
        return _load_parquet(path)
    names = ("problems.json", "pid_splits.json")
    problems_file, splits_file = require_files(path, names, "ScienceQA's two official files")
    problems, splits = read_json_file(problems_file), read_json_file(splits_file)
    require_keys(splits, ("test",), str(splits_file))
    questions = []
    for listed in to_list(splits["test"], f"{splits_file}: test"):
        pid = str(to_id(listed, f"{splits_file}: test"))
        require_keys(problems, (pid,), str(problems_file))
        problem = problems[pid]
        where = f"{problems_file}, problem {pid}"
        require_keys(problem, _KEYS, where)
        name = to_name(problem["image"], f"{where}: image")
        questions.append(_make_question(pid, problem, f"{pid}/{name}" if name else None, where))
    return questions


def read_answers(path: Path) -> list[Prediction]:
    """LLaVA's answer jsonl, or the `_result.json` or `_output.json` that its script writes.

    Raises:
        UserError: none of these.
    """
    content = read_whole(path) if path.suffix == ".json" else None
    if isinstance(content, dict) and isinstance(content.get("outputs"), dict):
        return [
            Prediction(pid, "", to_text(text, f"{path}, outputs, {pid}"))
            for pid, text in content["outputs"].items()
        ]
    if isinstance(content, dict) and {"correct", "incorrect"} <= content.keys():
        kinds = ("correct", "incorrect")
        analyses = [entry for k in kinds for entry in to_list(content[k], f"{path}: {k}")]
        for number, entry in enumerate(analyses):
            require_keys(entry, ("question_id", "pred"), f"{path}, analysis {number}")
        return [
            Prediction(
                question_id=to_id(entry["question_id"], f"{path}, analysis {n}: question_id"),
                prompt="",
                text=to_text(entry["pred"], f"{path}, analysis {n}: pred"),
            )
            for n, entry in enumerate(analyses)
        ]
    return read_predictions(path)


def parse_answer_llava15(text: str) -> str | None:
    """LLaVA's rule: a letter, or None when there is none to be found."""
    if len(text) == 1 and text in LETTERS:
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    stated: list[str] = _STATED.findall(text)
    return stated[0] if len(stated) == 1 else None


def parse_answer_lmms_eval(text: str) -> str | None:
    """lmms-eval's rule: stripped, a letter in any case, or a capital followed by a period."""
    text = text.strip()
    if len(text) == 1 and text.upper() in LETTERS:
        return text.upper()
    return text[0] if len(text) >= 2 and text[0].isupper() and text[1] == "." else None


PARSERS: Mapping[Profile, Callable[[str], str | None]] = {
    "llava15": parse_answer_llava15,
    "lmms_eval": parse_answer_lmms_eval,
}


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy, all and with image. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions)
    parse = PARSERS[profile]
    credits, num_failed = {}, 0
    for question in questions:
        text = joined.text(id_key(question))
        letter = None if text is None else parse(text)
        num_failed += text is not None and letter is None
        credits[id_key(question)] = float(letter == question.reference)
    with_image = [credits[id_key(q)] for q in questions if q.images]
    subjects = group_credits(credits, {id_key(q): q.category for q in questions if q.category})
    notes = list(joined.notes)
    if num_failed:
        notes.append(f"{num_failed} answer(s) without a letter the parser knows, counted as wrong")
    if len(questions) != _NUM_QUESTIONS:
        notes.insert(0, f"{len(questions):,} questions; the test split has {_NUM_QUESTIONS:,}")
    metrics = {
        "accuracy": percent(credits.values()),
        **({"accuracy_image": percent(with_image)} if with_image else {}),
        **{f"accuracy_{subject}": percent(values) for subject, values in subjects.items()},
    }
    version = f"{len(questions)} questions, {len(with_image)} with image"
    return joined.make_result(
        *("scienceqa", profile, metrics, credits, notes),
        scale=100,
        data_version=version,
        groups={"accuracy": ""},
    )


def _load_parquet(path: Path) -> list[Question]:
    questions: list[Question] = []
    for file in find_parquet(path, "test"):
        columns = ("question", "choices", "answer", "hint", "image")
        for index, row in enumerate(read_parquet(file, columns, optional=("subject",))):
            image = parquet_image(file, index, "image") if row["image"] else None
            where = f"{file}, row {index}"
            questions.append(_make_question(str(len(questions)), row, image, where))
    return questions


def _make_question(pid: str, problem: Mapping[str, Any], image: str | None, where: str) -> Question:
    listed = to_list(problem["choices"], f"{where}: choices")
    choices = [to_text(choice, f"{where}: choices") for choice in listed]
    answer = to_number(problem["answer"], f"{where}: answer")
    if len(choices) > len(LETTERS):
        raise UserError(f"{where}: {len(choices)} choices; expected at most {len(LETTERS)}")
    if not 0 <= answer < len(choices):
        raise UserError(f"{where}: answer: expected the index of a choice, found {answer!r}")
    question = to_text(problem["question"], f"{where}: question")
    hint = to_name(problem["hint"], f"{where}: hint")
    context = f"Context: {hint}\n" if hint else ""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return Question(
        question_id=pid,
        text=context + "\n".join([question, *lines]) + SUFFIX,
        images=(image,) if image else (),
        reference=LETTERS[answer],
        category=to_name(problem.get("subject"), f"{where}: subject").replace(" ", "_"),
        metadata={"question": question},
    )


BENCHMARK = Benchmark(
    name="scienceqa",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 1024, "lmms_eval": 16},
)
