"""MME's files: the release folder or the hub's parquet, and result folders of `<category>.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import (
    parquet_image,
    read_parquet,
    read_text,
    to_text,
    to_yes_no,
)
from prism_tune.evaluation.benchmarks.hub_files import find_parquet
from prism_tune.evaluation.predictions import read_predictions
from prism_tune.schema import Prediction, Question

SUFFIX = "\nAnswer the question using a single word or phrase."
OFFICIAL_SUFFIX = " Please answer yes or no."
PERCEPTION = (
    "existence", "count", "position", "color", "posters",
    "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = (
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
_IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")
_NUM_FIELDS = 4
_REFERENCE = "MME's reference"
LINE = "MME's line"
"""Number of a result folder's line in its file: lines 2k and 2k + 1 are of one image."""


def load_questions(path: Path, profile: Profile) -> list[Question]:
    """Questions from the release folder (with or without `questions_answers_YN/`) or parquet.

    Raises:
        UserError: no category folder, or a line that is not a question, a tab, and Yes or No.
    """
    if not path.is_dir() and path.suffix != ".parquet":
        raise UserError(f"{path}: expected MME's release folder, with one folder per category")
    categories = [c for c in (*PERCEPTION, *COGNITION) if (path / c).is_dir()]
    if not categories:
        return _load_parquet(path, profile)
    questions = [q for category in categories for q in _read_category(path / category, profile)]
    if not questions:
        raise UserError(f"{path}: category folders, but no <category>/[questions_answers_YN/]*.txt")
    return questions


def read_answers(path: Path) -> list[Prediction]:
    """LLaVA's answer jsonl, or the folder of `<category>.txt` that the official script reads.

    Raises:
        UserError: neither of these, or a line without its four fields.
    """
    if not path.is_dir():
        return read_predictions(path)
    files = [path / f"{category}.txt" for category in (*PERCEPTION, *COGNITION)]
    answers = [answer for file in files if file.exists() for answer in _read_results(file)]
    if not answers:
        raise UserError(f"{path}: expected MME's results, {files[0].name}, {files[1].name}, ...")
    return answers


def own_questions(predictions: Sequence[Prediction]) -> list[Question]:
    """The questions of a result folder, which carries question and reference with each answer.

    As in the official script, the two questions of an image are on adjacent lines.
    """
    return [
        Question(
            question_id=answer.question_id,
            text="",
            images=(),
            reference=answer.metadata[_REFERENCE],
            category=str(answer.question_id).partition("/")[0],
            metadata={"question": answer.prompt, LINE: answer.metadata[LINE]},
        )
        for answer in predictions
        if _REFERENCE in answer.metadata
    ]


def _read_results(file: Path) -> list[Prediction]:
    answers: list[Prediction] = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        where, fields = f"{file}, line {number}", line.rstrip("\r").split("\t", 3)
        if len(fields) < _NUM_FIELDS:
            raise UserError(
                f"{where}: expected file, question, reference and answer with tabs between them, "
                f"found {line!r}"
            )
        name, question, reference, text = fields
        known = {_REFERENCE: to_yes_no(reference, where), LINE: len(answers)}
        answers.append(Prediction(f"{file.stem}/{name}", question, text, metadata=known))
    return answers


def _read_category(folder: Path, profile: Profile) -> list[Question]:
    texts = folder / "questions_answers_YN"
    images = folder / "images" if texts.is_dir() else folder
    texts = texts if texts.is_dir() else folder
    questions = []
    for file in sorted(texts.rglob("*.txt")):
        image = f"{folder.name}/{_find_image(images, file.stem).relative_to(folder)}"
        for number, line in enumerate(read_text(file).split("\n"), 1):
            if line.strip():
                where = f"{file}, line {number}"
                question, answer = _split_line(line, where)
                made = _make_question(image, question, answer, image, where, profile=profile)
                questions.append(made)
    return questions


def _find_image(folder: Path, stem: str) -> Path:
    """The image of a text file; its official name where the images were not copied along."""
    candidates = [folder / f"{stem}{suffix}" for suffix in _IMAGE_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])


def _split_line(line: str, where: str) -> tuple[str, str]:
    question, tab, answer = line.strip().partition("\t")
    if not tab:
        raise UserError(f"{where}: expected a question, a tab, and Yes or No; found {line!r}")
    return question, answer


def _make_question(
    question_id: str, question: str, answer: object, image: str, where: str, *, profile: Profile
) -> Question:
    asked = question.strip().replace(OFFICIAL_SUFFIX, "")
    return Question(
        question_id=question_id,
        text=(asked if profile == "lmms_eval" else asked.strip()) + SUFFIX,
        images=(image,),
        reference=to_yes_no(answer, where),
        category=question_id.partition("/")[0],
        metadata={"question": question},
    )


def _load_parquet(path: Path, profile: Profile) -> list[Question]:
    files = find_parquet(path, "test")
    if not files:
        raise UserError(
            f"{path}: none of MME's category folders ({', '.join(PERCEPTION[:3])}, ...) and no "
            "parquet file; expected the release folder or the hub's files"
        )
    return [
        _make_question(
            to_text(row["question_id"], f"{file}, row {index}: question_id"),
            to_text(row["question"], f"{file}, row {index}: question"),
            row["answer"],
            parquet_image(file, index, "image"),
            f"{file}, row {index}",
            profile=profile,
        )
        for file in files
        for index, row in enumerate(read_parquet(file, ("question_id", "question", "answer")))
    ]
