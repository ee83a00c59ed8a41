"""Answers to POPE: LLaVA's file, or POPE's own lines, which are known by their place alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import to_text
from prism_tune.evaluation.answer_files import read_answer_objects
from prism_tune.evaluation.predictions import fold_text, parse_prediction
from prism_tune.schema import Prediction, Question

_FILE = "POPE's file"


def read_answers(path: Path) -> list[Prediction]:
    """LLaVA's answer file; or POPE's own lines, of one split or of several one after another.

    A folder stands for the files in it. POPE's lines have no ids: they keep their place, and the
    questions decide in `score_answers` which split they are of.

    Raises:
        UserError: neither of these.
    """
    files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
    answers = [answer for file in files for answer in _read_file(file)]
    if not answers:
        raise UserError(f"{path}: no answers in it")
    return answers


def _read_file(file: Path) -> list[Prediction]:
    return [
        Prediction(
            question_id=f"{file.name}:{place}",
            prompt=to_text(record["question"], f"{where}: question"),
            text=to_text(record["answer"], f"{where}: answer"),
            metadata={_FILE: str(file)},
        )
        if record.keys() & {"question", "answer", "question_id"} == {"question", "answer"}
        else parse_prediction(record, where)
        for place, (where, record) in enumerate(read_answer_objects(file), 1)
    ]


def find_places(
    questions: Sequence[Question], predictions: Sequence[Prediction]
) -> list[Prediction]:
    """The predictions with the ids of their questions, which POPE's own lines lack.

    Raises:
        UserError: their questions are in the order of no split, or of two alike.
    """
    by_file: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_file[prediction.metadata.get(_FILE, "")].append(prediction)
    placed = by_file.pop("", [])
    splits: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        splits[question.category].append(question)
    orders = [order for n in range(1, len(splits) + 1) for order in permutations(splits, n)]
    for file, answers in by_file.items():
        asked = [fold_text(answer.prompt) for answer in answers]
        found = [
            order
            for order in orders
            if asked
            == [fold_text(q.metadata["question"]) for split in order for q in splits[split]]
        ]
        named = [order for order in found if all(split in Path(file).name for split in order)]
        if len(named or found) != 1:
            sizes = ", ".join(f"{split} {len(listed):,}" for split, listed in splits.items())
            raise UserError(
                f"{file}: {len(answers):,} answers without ids, which are joined by their place; "
                f"expected the questions of one split ({sizes}), or of several one after another, "
                f"in the order of the annotations; found {'two such orders' if found else 'others'}"
            )
        ids = [q.question_id for split in (named or found)[0] for q in splits[split]]
        placed += [replace(a, question_id=i) for a, i in zip(answers, ids, strict=True)]
    return placed
