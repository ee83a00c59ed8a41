r"""MMBench (English dev): multiple choice, each question asked once per rotation of its options.

Source: open-compass, the dev TSV; or the hub's parquet of the same columns.
Schema: index, question, hint, A, B, C, D, answer, category, image (base64; VLMEvalKit's variant
    gives a rotated copy the index of its main row), source, l2-category, comment, split. A rotated
    copy is a row of its own with index + k x 1,000,000. The image column may be absent: images are
    then `<main index>.jpg`.
Versions: `mmbench_dev_20230712` has 1,176 questions in 4,377 rows (LLaVA-1.5's), the current dev
    file 1,164. The version is named in every result.
Predictions: LLaVA's answer jsonl, or a submission xlsx.
Prompt: llava15: (hint + "\n" unless null) + question + "\nA. ..." per option +
    "\nAnswer with the option's letter from the given choices directly."; options end at the first
    null. Null is what LLaVA takes for it: empty, "nan" or "none" in any case. lmms_eval: hint,
    question and "There are several options:" joined by spaces, options as lines.
Decoding: greedy, 1,024 new tokens; one generation per row.
Parsing: see `option_letter.py`; an answer without a letter is wrong (no GPT extraction).
Metric: `accuracy` is CircularEval: a question is right if all its rows are; `accuracy_first_pass`
    (main rows), `accuracy_all_rows`, and CircularEval by category and l2-category, in percent.
Missing answers: wrong. Test splits have no answers: no score, only the submission.
Submission: `mmbench_upload.xlsx` with index, question, A-D, prediction, answer, split.
Deviations: VLMEvalKit asks GPT for unresolved answers and then guesses at random.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    data_uri,
    find_parquet,
    parquet_image,
    read_parquet,
    require_keys,
)
from prism_tune.evaluation.benchmark import Benchmark, Profile
from prism_tune.evaluation.benchmarks.option_letter import find_letter, find_letter_lmms_eval
from prism_tune.evaluation.metrics import group_credits, percent
from prism_tune.evaluation.predictions import (
    find_foreign_prompts,
    id_key,
    join_predictions,
    name_keys,
    read_predictions,
)
from prism_tune.schema import BenchmarkResult, Prediction, Question

INSTRUCTION = "Answer with the option's letter from the given choices directly."
LETTERS = "ABCD"
ROTATION = 1_000_000
_VERSIONS = {1176: "mmbench_dev_20230712 (1,176 questions)", 1164: "current dev (1,164 questions)"}
_SUBMITTED = ("index", "question", *LETTERS, "prediction", "answer", "split")

Parser = Callable[[str, Mapping[str, str]], str | None]
PARSERS: Mapping[Profile, Parser] = {"llava15": find_letter, "lmms_eval": find_letter_lmms_eval}


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Every row of the TSV (or parquet), rotated copies included.

    Raises:
        UserError: missing file or column, or an index that is no number.
    """
    files = find_parquet(path)
    rows = [row for file in files for row in _read_parquet(file)] if files else _read_tsv(path)
    images = {row["index"]: row["image"] for row in rows if "image" in row}
    return [_make_question(row, images, profile) for row in rows]


def score_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], profile: Profile
) -> BenchmarkResult:
    """CircularEval. Raises UserError when nothing can be joined."""
    joined = join_predictions(questions, predictions)
    parse = PARSERS[profile]
    known = [question for question in questions if question.reference is not None]
    rows: dict[int, float] = {}
    num_unresolved = 0
    for question in known:
        text = joined.text(id_key(question))
        letter = None if text is None else parse(text, question.metadata["options"])
        num_unresolved += text is not None and letter is None
        rows[int(question.question_id)] = float(letter == question.reference)
    foreign = find_foreign_prompts(questions, joined)
    version = _describe_version(questions)
    notes = [
        f"data: {version}",
        *joined.notes,
        name_keys(foreign, "{} answer(s) whose prompt does not contain their question"),
        f"{num_unresolved} answer(s) without a letter, counted as wrong" if num_unresolved else "",
        "" if known else "no references in these annotations (test split): no score",
    ]
    hits = _hit_groups(rows)
    metrics = _compute_metrics(known, rows, hits) if known else {}
    credits = {str(index): hit for index, hit in hits.items()}
    return joined.make_result(
        *("mmbench", profile, metrics, credits, notes),
        scale=100,
        data_version=version,
        groups={"accuracy": ""},
    )


def write_submission(
    questions: Sequence[Question], predictions: Sequence[Prediction], folder: Path
) -> Path:
    """Write `mmbench_upload.xlsx`, a row for each of the TSV; a missing answer is an empty cell."""
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    joined = join_predictions(questions, predictions)
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    first = questions[0].metadata["row"]
    columns = [name for name in _SUBMITTED if name in first or name == "prediction"]
    sheet.append(columns)
    for question in questions:
        row = {**question.metadata["row"], "prediction": joined.text(id_key(question))}
        cells = [row[name] if row[name] != "" else None for name in columns]
        sheet.append([ILLEGAL_CHARACTERS_RE.sub("", c) if isinstance(c, str) else c for c in cells])
    folder.mkdir(parents=True, exist_ok=True)
    book.save(folder / "mmbench_upload.xlsx")
    return folder / "mmbench_upload.xlsx"


def read_answers(path: Path) -> list[Prediction]:
    """LLaVA's answer jsonl, or a submission xlsx (columns index and prediction).

    Raises:
        UserError: neither of these.
    """
    if path.suffix != ".xlsx":
        return read_predictions(path)
    from openpyxl import load_workbook

    try:
        rows = load_workbook(path, read_only=True).worksheets[0].iter_rows(values_only=True)
    except (OSError, BadZipFile) as error:
        raise UserError(f"{path}: not a readable xlsx file: {error}") from error
    columns = list(next(rows, ()))
    require_keys(dict.fromkeys(columns), ("index", "prediction"), str(path))
    index, prediction = columns.index("index"), columns.index("prediction")
    answered = [row for row in rows if row[prediction] is not None]
    return [Prediction(row[index], "", str(row[prediction])) for row in answered]


def is_null(value: str | None) -> bool:
    """What LLaVA takes for a missing cell."""
    return value is None or value.lower() in ("", "nan", "none")


def _hit_groups(rows: Mapping[int, float]) -> dict[int, float]:
    groups: dict[int, list[float]] = defaultdict(list)
    for index, credit in rows.items():
        groups[index % ROTATION].append(credit)
    return {index: float(all(credits)) for index, credits in groups.items()}


def _compute_metrics(
    questions: Sequence[Question], rows: Mapping[int, float], hits: Mapping[int, float]
) -> dict[str, float]:
    mains = [question for question in questions if int(question.question_id) < ROTATION]
    credits = {id_key(question): hits[int(question.question_id)] for question in mains}
    metrics = {
        "accuracy": percent(credits.values()),
        "accuracy_first_pass": percent(rows[int(question.question_id)] for question in mains),
        "accuracy_all_rows": percent(rows.values()),
    }
    levels = ({id_key(q): q.category for q in mains}, {id_key(q): q.metadata["l2"] for q in mains})
    for groups in levels:
        named = {key: group for key, group in groups.items() if group}
        grouped = group_credits(credits, named)
        metrics |= {group: percent(values) for group, values in grouped.items()}
    return metrics


def _describe_version(questions: Sequence[Question]) -> str:
    num_main = sum(int(question.question_id) < ROTATION for question in questions)
    known = _VERSIONS.get(num_main)
    return known or f"{num_main:,} questions: neither the 1,176 of 2023-07-12 nor the current 1,164"


def _make_question(row: Mapping[str, Any], images: Mapping[int, str], profile: Profile) -> Question:
    options: dict[str, str] = {}
    for letter in LETTERS:
        if is_null(row.get(letter)):
            break
        options[letter] = row[letter]
    return Question(
        question_id=row["index"],
        text=_make_prompt(row, options, profile),
        images=(_find_image(row, images),),
        reference=row.get("answer") or None,
        category=row.get("category") or "",
        metadata={
            "question": row["question"],
            "options": options,
            "l2": row.get("l2-category") or "",
            "row": {name: row[name] for name in _SUBMITTED if name in row},
        },
    )


def _make_prompt(row: Mapping[str, Any], options: Mapping[str, str], profile: Profile) -> str:
    hint = "" if is_null(row.get("hint")) else row["hint"]
    lines = [f"{letter}. {text}" for letter, text in options.items()]
    if profile == "lmms_eval":
        head = " ".join(
            part for part in (hint, row["question"], "There are several options:") if part
        )
        return "\n".join([head, *lines, INSTRUCTION])
    return "\n".join([*([hint] if hint else []), row["question"], *lines, INSTRUCTION])


def _find_image(row: Mapping[str, Any], images: Mapping[int, str]) -> str:
    image = row.get("image") or ""
    if image.isdecimal():
        image = images.get(int(image), "")
    if image.startswith("parquet:"):
        return str(image)
    return data_uri(image) if image else f"{row['index'] % ROTATION}.jpg"


def _read_tsv(path: Path) -> list[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="")
            return [_check_row(row, f"{path}, record {n}") for n, row in enumerate(reader, 1)]
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{path}: no such file; expected MMBench's TSV") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as MMBench's TSV: {error}") from error


def _read_parquet(file: Path) -> list[dict[str, Any]]:
    optional = ("hint", *LETTERS, "answer", "category", "L2-category", "l2-category", "split")
    rows = []
    for number, row in enumerate(read_parquet(file, ("index", "question"), optional)):
        row.setdefault("l2-category", row.pop("L2-category", ""))
        row["image"] = parquet_image(file, number, "image")
        rows.append(_check_row(row, f"{file}, row {number}"))
    return rows


def _check_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    require_keys(row, ("index", "question", "A", "B"), where)
    try:
        return {**row, "index": int(row["index"])}
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: index: expected a number, found {row['index']!r}") from error


BENCHMARK = Benchmark(
    name="mmbench",
    load_questions=load_questions,
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 1024, "lmms_eval": 1024},
    write_submission=write_submission,
)
