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
    "\nAnswer with the option's letter from the given choices directly." Null is what LLaVA takes
    for it: empty, "nan" or "none" in any case; but an option "None" stays one where the reference
    names it or another option follows. lmms_eval: hint, question and "There are several options:"
    joined by spaces, options as lines, an empty line, the instruction; nulls, empty options and
    "nan" are left out wherever they stand, "None" is asked.
Decoding: greedy, 1,024 new tokens; one generation per row.
Parsing: see `option_letter.py`; an answer without a letter is wrong (no GPT extraction).
    lmms_eval is its task `mmbench_en_dev_static`, which asks no GPT either.
References: a letter of the row's options, in any case; another one is an error that names the row,
    as are rows with fewer columns than the header (a download that broke off).
Metric: `accuracy` is CircularEval: a question is right if all its rows are; `accuracy_first_pass`
    (main rows), `accuracy_all_rows`, and CircularEval by category and l2-category, in percent.
Missing answers: wrong. Test splits have no answers: no score, only the submission.
Submission: `mmbench_upload.xlsx` with index, question, A-D, prediction, answer, split.
Deviations: VLMEvalKit asks GPT for unresolved answers and then guesses at random.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.evaluation.benchmark import Benchmark
from prism_tune.evaluation.benchmarks.mmbench_rows import ROTATION, SUBMITTED, Wording, load_rows
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
_WORDING = Wording({"llava15": INSTRUCTION, "lmms_eval": INSTRUCTION}, skips_nan=True)
_VERSIONS = {1176: "mmbench_dev_20230712 (1,176 questions)", 1164: "current dev (1,164 questions)"}

Parser = Callable[[str, Mapping[str, str]], str | None]
PARSERS: Mapping[Profile, Parser] = {"llava15": find_letter, "lmms_eval": find_letter_lmms_eval}


def describe_version(num_questions: int) -> str:
    """Which English file has so many questions."""
    unknown = f"{num_questions:,} questions: neither the 1,176 of 2023-07-12 nor the current 1,164"
    return _VERSIONS.get(num_questions, unknown)


def score_answers(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    profile: Profile,
    *,
    name: str = "mmbench",
    describe: Callable[[int], str] = describe_version,
) -> BenchmarkResult:
    """CircularEval. Raises UserError when nothing can be joined.

    Args:
        questions: every row.
        predictions: the answers.
        profile: whose parser.
        name: of the edition.
        describe: says of a number of questions which version of the edition has it.
    """
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
    version = describe(sum(int(question.question_id) < ROTATION for question in questions))
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
        *(name, profile, metrics, credits, notes),
        scale=100,
        data_version=version,
        groups={"accuracy": ""},
    )


def write_submission(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    folder: Path,
    *,
    name: str = "mmbench",
) -> Path:
    """Write `<name>_upload.xlsx`, a row for each of the TSV; a missing answer is an empty cell."""
    from openpyxl import Workbook

    joined = join_predictions(questions, predictions)
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    first = questions[0].metadata["row"]
    columns = [column for column in SUBMITTED if column in first or column == "prediction"]
    sheet.append(columns)
    for question in questions:
        row = {**question.metadata["row"], "prediction": joined.text(id_key(question))}
        cells = [row[column] if row[column] != "" else None for column in columns]
        sheet.append([_make_cell(sheet, cell) for cell in cells])
    folder.mkdir(parents=True, exist_ok=True)
    book.save(folder / f"{name}_upload.xlsx")
    return folder / f"{name}_upload.xlsx"


def read_answers(path: Path) -> list[Prediction]:
    """LLaVA's answer jsonl, or a submission table, whose ids are the column `index`.

    Raises:
        UserError: neither of these.
    """
    return read_predictions(path, ("question_id", "index", "id"))


def _make_cell(sheet: Any, value: object) -> Any:
    """A text as text, exactly: "=1+1" is an answer here, and a formula to openpyxl."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value))
    cell.data_type = "s"
    return cell


def circle_key(question: Question) -> str:
    """The main question: the rows with its options rotated are right or wrong with it."""
    return str(int(question.question_id) % ROTATION)


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


BENCHMARK = Benchmark(
    name="mmbench",
    load_questions=partial(load_rows, wording=_WORDING),
    read_predictions=read_answers,
    score=score_answers,
    max_new_tokens={"llava15": 1024, "lmms_eval": 1024},
    write_submission=write_submission,
    credit_key=circle_key,
)
