r"""MMMU (validation): 900 college questions of 30 subjects, multiple choice or open.

Source: MMMU-Benchmark/MMMU, `answer_dict_val.json` (scores parsed answers); or the hub's parquet
    (asks and scores).
Schema: {id: {question_type "multiple-choice" | "short-answer", ground_truth (text or list)}};
    parquet: id "validation_<Subject>_<n>", question with <image i>, options (a *string* of a
    list), answer, question_type, image_1..image_7. A list of answers is a string there too.
Predictions: LLaVA's answer jsonl; one JSON {id: response}; or the official folder of
    `<Subject>/output.json` (list of {id, question_type, all_choices, index2ans, response}).
Prompt: llava15: question + "\n" + lines "(A) text" + "\n\n" + INSTRUCTION_CHOICE, or question +
    "\n" + INSTRUCTION_OPEN; "<image 1>" stays in the text, and only image_1 is shown, even where
    options hold images (the official code answers those at random). lmms_eval: options "A. text",
    a blank line before either instruction, the images that the text names.
Decoding: greedy, 128 new tokens. The official run used 5 beams, sampling, and an
    unpadded image; it cannot be reproduced.
Parsing: `mmmu_answers.py`. Where the options are known (parquet, or the official folder) a letter
    is parsed from the response, and an answer without one is drawn at random; where they are not
    (`answer_dict_val.json` with a JSON or jsonl of answers) the response itself is
    compared, as `main_eval_only.py` does.
Metric: accuracy over all questions, 6 domains and 30 subjects, as the official script prints it:
    a fraction rounded to 3 decimals (lmms_eval: 5). `accuracy_expected`, the headline, owes nothing
    to a draw: an answer without a letter has the credit of its expectation, 1 / options.
    `accuracy`, domains and subjects are the official ones, by the official module's own draw (one
    generator, seed 42, in the official files' order). A question's credit is the expected one.
Missing answers: wrong (the official scripts leave them out).
lmms_eval: its letter test finds the A of "NASA ", and it takes the text of a list of answers for
    an answer, so that three open questions are never right.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_json_file,
    read_parquet,
    require_keys,
    to_id,
    to_letter,
    to_list,
    to_text,
)
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.benchmarks.mmmu_answers import (
    DOMAINS,
    SUBJECTS,
    draw_choices,
    find_subject,
    judge_open,
    parse_choice,
    parse_choice_lmms_eval,
    parse_open,
)
from prism_tune.evaluation.metrics import group_credits, mean
from prism_tune.evaluation.predictions import id_key, join_predictions, read_predictions
from prism_tune.schema import BenchmarkResult, Prediction, Question

INSTRUCTION_CHOICE = "Answer with the option's letter from the given choices directly."
INSTRUCTION_OPEN = "Answer the question using a single word or phrase."
_NUM_QUESTIONS = 900
_NUM_IMAGES = 7
_CHOICE = "multiple-choice"
_TYPES = (_CHOICE, "open", "short-answer")
_OPTIONS = "MMMU's index2ans"
_DECIMALS: Mapping[Profile, int] = {"llava15": 3, "lmms_eval": 5}
_PARSERS = {"llava15": parse_choice, "lmms_eval": parse_choice_lmms_eval}


@dataclass(frozen=True)
class Verdict:
    """Credit of one answer; without a letter its expectation, and what is drawn from.

    `compared`: as it stands, there being no options.
    """

    expected: float
    letters: tuple[str, ...] = ()
    compared: bool = False


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions of `answer_dict_val.json` (to score only: no prompt) or of the hub's parquet.

    Raises:
        UserError: neither of these, or a key is missing.
    """
    if files := find_parquet(path, "validation", SUBJECTS):
        return [question for file in files for question in _load_parquet(file, profile)]
    file = path / "answer_dict_val.json" if path.is_dir() else path
    answers = read_json_file(file)
    require_keys(answers, (), str(file))
    return [_from_answer_dict(str(key), entry, file) for key, entry in answers.items()]


def read_answers(path: Path) -> list[Prediction]:
    """Answers in any of the three layouts.

    Raises:
        UserError: none of them, or a key is missing.
    """
    if path.is_dir():
        files = sorted(path.glob("*/output.json"))
        if not files:
            raise UserError(f"{path}: no <Subject>/output.json in it")
        return [answer for file in files for answer in _read_output(file)]
    return _read_output(path) if path.name == "output.json" else read_predictions(path)


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """Accuracy by the official rules. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions)
    verdicts = {
        id_key(question): _judge(question, joined.answers.get(id_key(question)), profile)
        for question in questions
    }
    expected = {key: verdict.expected for key, verdict in verdicts.items()}
    drawn = draw_choices({key: v.letters for key, v in verdicts.items() if v.letters})
    golds = {id_key(question): _list_golds(question.reference) for question in questions}
    official = expected | {key: float(letter in golds[key]) for key, letter in drawn.items()}
    notes = list(joined.notes)
    if len(questions) != _NUM_QUESTIONS:
        notes.insert(0, f"{len(questions)} questions; the validation split has {_NUM_QUESTIONS}")
    if drawn:
        notes.append(
            f"{len(drawn)} answer(s) without a letter: `accuracy_expected` gives them 1 / options, "
            "`accuracy` the official script's draw (seed 42)"
        )
    if any(verdict.compared for verdict in verdicts.values()):
        notes.append("options unknown: multiple-choice answers are compared as they stand")
    decimals = _DECIMALS[profile]
    metrics = {
        "accuracy_expected": round(mean(expected.values()), decimals),
        "accuracy": round(mean(official.values()), decimals),
        **_group_metrics(official, decimals),
    }
    groups = {"accuracy_expected": ""}
    return joined.make_result("mmmu", profile, metrics, expected, notes, scale=1, groups=groups)


def _judge(question: Question, answer: Prediction | None, profile: Profile) -> Verdict:
    if answer is None:
        return Verdict(0.0)
    gold = question.reference
    if question.metadata["question_type"] != _CHOICE:
        return Verdict(float(judge_open(parse_open(answer.text), gold)))
    options = question.metadata.get("options") or answer.metadata.get(_OPTIONS)
    golds = _list_golds(gold)
    if not options:
        return Verdict(float(answer.text in golds), compared=True)
    letter = _PARSERS[profile](answer.text, options)
    if letter is not None:
        return Verdict(float(letter in golds))
    chance = sum(option in golds for option in options) / len(options)
    return Verdict(chance, letters=tuple(options))


def _list_golds(reference: str | Sequence[str]) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)


def _group_metrics(credits: Mapping[str, float], decimals: int) -> dict[str, float]:
    by_subject = group_credits(credits, {key: find_subject(key) for key in credits})
    metrics = {}
    for domain, members in DOMAINS.items():
        if listed := [c for subject in members.split() for c in by_subject.get(subject, ())]:
            metrics[domain] = round(mean(listed), decimals)
    subjects = {name: round(mean(by_subject[name]), decimals) for name in sorted(by_subject)}
    return {**metrics, **subjects}


def _from_answer_dict(question_id: str, entry: Any, file: Path) -> Question:
    where = f"{file}, {question_id}"
    require_keys(entry, ("question_type", "ground_truth"), where)
    kind, gold = _read_type(entry["question_type"], where), entry["ground_truth"]
    is_choice, where = kind == _CHOICE, f"{where}: ground_truth"
    golds = [to_text(text, where) for text in (gold if isinstance(gold, list) else [gold])]
    golds = [to_letter(text, ascii_uppercase, where) if is_choice else text for text in golds]
    if not golds:
        raise UserError(f"{where}: expected an answer, found an empty list")
    return Question(
        question_id=question_id,
        text="",
        images=(),
        reference=golds if isinstance(gold, list) else golds[0],
        category=find_subject(question_id),
        metadata={"question": "", "question_type": kind},
    )


def _read_type(kind: Any, where: str) -> str:
    if kind not in _TYPES:
        expected = ", ".join(_TYPES)
        raise UserError(f"{where}: question_type: expected one of {expected}, found {kind!r}")
    return str(kind)


def _load_parquet(file: Path, profile: Profile) -> list[Question]:
    columns = ("id", "question", "options", "answer", "question_type")
    return [
        _make_question(row, file, index, profile)
        for index, row in enumerate(read_parquet(file, columns))
    ]


def _make_question(row: Mapping[str, Any], file: Path, index: int, profile: Profile) -> Question:
    where = f"{file}, row {index}"
    is_choice = _read_type(row["question_type"], where) == _CHOICE
    texts = _literal_list(row["options"], f"{where}, options") if is_choice else []
    options = {chr(ord("A") + n): str(text) for n, text in enumerate(texts)}
    question, key = to_text(row["question"], f"{where}: question"), to_text(row["id"], where)
    text = _make_prompt(question, options if is_choice else None, profile)
    lmms_eval = profile == "lmms_eval"
    return Question(
        question_id=key,
        text=text,
        images=tuple(
            parquet_image(file, index, f"image_{n}")
            for n in (range(1, _NUM_IMAGES + 1) if lmms_eval else (1,))
            if not lmms_eval or f"<image {n}>" in text
        ),
        reference=_read_gold(row["answer"], options, f"{where}, answer", profile),
        category=find_subject(key),
        metadata={
            "question": question,
            "question_type": row["question_type"],
            "options": options,
        },
    )


def _read_gold(
    answer: Any, options: Mapping[str, str], where: str, profile: Profile
) -> str | list[str]:
    """The reference: a letter, a text, or a list of these. lmms-eval takes a list for a text."""
    listed = answer if isinstance(answer, list) else [to_text(answer, where)]
    if not listed:
        raise UserError(f"{where}: expected an answer, found an empty list")
    if not isinstance(answer, list) and listed[0].startswith("[") and profile != "lmms_eval":
        listed = _literal_list(listed[0], where)
    if options and not str(listed[0]).startswith("["):
        return [to_letter(text, options, where) for text in listed]
    golds = [to_text(text, where) for text in listed]
    return golds if len(golds) > 1 else golds[0]


def _make_prompt(question: str, options: Mapping[str, str] | None, profile: Profile) -> str:
    """`options` is None where the question is open."""
    style = "{}. {}" if profile == "lmms_eval" else "({}) {}"
    if options is not None:
        lines = [style.format(letter, text) for letter, text in options.items()]
        return "\n".join([question, *lines, "", INSTRUCTION_CHOICE])
    gap = "\n\n" if profile == "lmms_eval" else "\n"
    return question + gap + INSTRUCTION_OPEN


def _literal_list(text: Any, where: str) -> list[Any]:
    """A list, or the text of one, as the hub has it."""
    if isinstance(text, list):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"{where}: expected a Python list as text, found {text!r}") from error
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a Python list as text, found {text!r}")
    return value


def _read_output(file: Path) -> list[Prediction]:
    predictions = []
    for number, record in enumerate(to_list(read_json_file(file), str(file))):
        where = f"{file}, record {number}"
        require_keys(record, ("id", "response"), where)
        listed = record.get("index2ans") or {}
        require_keys(listed, (), f"{where}: index2ans")
        options = {letter: to_text(text, f"{where}: index2ans") for letter, text in listed.items()}
        response = to_text(record["response"], f"{where}: response")
        key = to_id(record["id"], f"{where}: id")
        predictions.append(Prediction(key, "", response, metadata={_OPTIONS: options}))
    return predictions


BENCHMARK = Benchmark(
    name="mmmu",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 128, "lmms_eval": 128},
)
