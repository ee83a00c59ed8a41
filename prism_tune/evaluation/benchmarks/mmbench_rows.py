r"""The rows of an MMBench file, in either language: read, checked, and asked.

TSV (or the hub's parquet) in, questions out. A TSV's cell is null where it is empty or "nan"; a
parquet's where it is null, and its "nan" stays a text, as lmms-eval sees it. LLaVA takes "none" for
null as well; here it is an option where the reference names it or another option follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    PARQUET,
    data_uri,
    parquet_image,
    read_parquet,
    require_keys,
    to_letter,
    to_number,
    to_text,
)
from prism_tune.evaluation.answer_files import read_table
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.schema import Question

LETTERS = "ABCD"
ROTATION = 1_000_000
SUBMITTED = ("index", "question", *LETTERS, "prediction", "answer", "split")
_TEXTS = ("question", "hint", *LETTERS, "E", "answer", "category", "l2-category", "split")
_SYSTEM = "There are several options:"
"""lmms-eval's, also before the Chinese questions, whose module reads the English task file."""


@dataclass(frozen=True)
class Wording:
    """What the editions differ in.

    Attributes:
        instruction: the last line, by profile.
        skips_nan: whether lmms-eval leaves out a hint "nan".
    """

    instruction: Mapping[Profile, str]
    skips_nan: bool


def load_rows(path: Path, profile: Profile, wording: Wording) -> list[Question]:
    """Every row of the TSV (or parquet), rotated copies included.

    Raises:
        UserError: missing file or column, a row with fewer or more columns than the header, an
            index that is no number, or a reference that is none of its row's options.
    """
    files = find_parquet(path, "dev")
    rows = (
        [row for file in files for row in _read_parquet(file)] if files else list(_read_tsv(path))
    )
    known = {row["index"] for _, row in rows}
    for where, row in rows:
        main = row["index"] % ROTATION
        if main not in known:
            raise UserError(
                f"{where}: index {row['index']}: a rotated copy of {main}, which has no row of its "
                "own; is the file complete?"
            )
    images = {row["index"]: row["image"] for _, row in rows if "image" in row}
    return [_make_question(row, where, images, profile, wording) for where, row in rows]


def list_options(row: Mapping[str, Any], reference: str | None) -> dict[str, str]:
    """The options of a row by letter, nulls left out; what "none" is, the module says."""
    named = {x: row[x] for x in LETTERS if row.get(x) and row[x].lower() != "nan"}
    real = [x for x, text in named.items() if x == reference or text.lower() != "none"]
    return {x: text for x, text in named.items() if real and x <= real[-1]}


def list_options_lmms_eval(row: Mapping[str, Any]) -> dict[str, str]:
    """The options lmms-eval parses with: all that are not null, "nan" and empty ones included."""
    return {x: row[x] for x in LETTERS if row.get(x) is not None}


def _make_question(
    row: Mapping[str, Any],
    where: str,
    images: Mapping[int, str],
    profile: Profile,
    wording: Wording,
) -> Question:
    answer = (row.get("answer") or "").strip()
    if answer.lower() == "nan":  # the hub's test split, whose references are not published
        answer = ""
    options = list_options(row, answer.upper() or None)
    reference = to_letter(answer, options, f"{where}: answer") if answer else None
    lmms_eval = profile == "lmms_eval"
    make_prompt = _make_prompt_lmms_eval if lmms_eval else _make_prompt
    return Question(
        question_id=row["index"],
        text=make_prompt(row, options, wording),
        images=(_find_image(row, images),),
        reference=reference,
        category=row.get("category") or "",
        metadata={
            "question": row["question"],
            "options": list_options_lmms_eval(row) if lmms_eval else options,
            "l2": row.get("l2-category") or "",
            "row": {name: row[name] for name in SUBMITTED if name in row},
        },
    )


def _make_prompt(row: Mapping[str, Any], options: Mapping[str, str], wording: Wording) -> str:
    hint = row.get("hint") or ""
    lines = [f"{letter}. {text}" for letter, text in options.items()]
    head = [hint] if hint.lower() not in ("", "nan", "none") else []
    return "\n".join([*head, row["question"], *lines, wording.instruction["llava15"]])


def _make_prompt_lmms_eval(
    row: Mapping[str, Any], options: Mapping[str, str], wording: Wording
) -> str:
    """As its `mmbench_doc_to_text`: nulls, empty options and "nan" left out wherever they stand."""
    hint = row.get("hint")
    has_hint = hint is not None and not (wording.skips_nan and hint == "nan")
    shown = {letter: row.get(letter) for letter in (*LETTERS, "E")}
    lines = [f"{letter}. {text}\n" for letter, text in shown.items() if text and text != "nan"]
    asked = f"{row['question']} " + f"{_SYSTEM}\n{''.join(lines)}".rstrip("\n")
    head = f"{hint} " if has_hint else ""
    return f"{head}{asked}\n\n{wording.instruction['lmms_eval']}"


def _find_image(row: Mapping[str, Any], images: Mapping[int, str]) -> str:
    image = row.get("image") or ""
    if image.isdecimal():
        image = images.get(int(image), "")
    if image.startswith(PARQUET):
        return str(image)
    return data_uri(image) if image else f"{row['index'] % ROTATION}.jpg"


def _read_tsv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected MMBench's TSV")
    for where, row in read_table(path):
        yield where, _check_row({name: _read_cell(cell) for name, cell in row.items()}, where)


def _read_cell(cell: str) -> str | None:
    return None if cell in ("", "nan", "NaN") else cell


def _read_parquet(file: Path) -> list[tuple[str, dict[str, Any]]]:
    optional = ("hint", *LETTERS, "E", "answer", "category", "L2-category", "l2-category", "split")
    rows = []
    for number, row in enumerate(read_parquet(file, ("index", "question"), optional)):
        row.setdefault("l2-category", row.pop("L2-category", None))
        row["image"] = parquet_image(file, number, "image")
        where = f"{file}, row {number}"
        rows.append((where, _check_row(row, where)))
    return rows


def _check_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The row with its index a number and its cells texts; a number's NaN is null."""
    require_keys(row, ("index", "question", "A", "B"), where)
    texts = {name: row[name] for name in _TEXTS if name in row}
    for name, value in texts.items():
        is_null = value is None or value != value
        row[name] = None if is_null else to_text(value, f"{where}: {name}")
    if row["question"] is None:
        raise UserError(f"{where}: question: expected text, found nothing")
    index = to_number(row["index"], f"{where}: index")
    if index < 0:
        raise UserError(f"{where}: index: expected 0 or more, found {index}")
    return {**row, "index": index}
