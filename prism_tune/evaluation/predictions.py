"""Answer files in LLaVA's format, and their join with a benchmark's questions.

One JSON object a line: {question_id, prompt, text, answer_id, model_id, metadata}. What official
scripts and servers write besides is read as well: a list of objects or {id: answer}, a table (csv,
tsv, xlsx), the id under `question_id`, `questionId`, `id` or `image`, the answer under `text`,
`prediction`, `response` or `answer`. An answer is joined to its question by id (MME: by id and
prompt), never by position. What cannot be joined is named in notes: a missing answer counts as
wrong, a question answered twice differently has no answer, an unknown id is left out. Nothing is
guessed.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from prism_tune.config.plugins import describe_plugin
from prism_tune.config.sections import Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.annotations import require_keys, to_id, to_text
from prism_tune.evaluation.answer_files import ID_KEYS, TEXT_KEYS, read_answer_objects
from prism_tune.run.folder import write_atomic
from prism_tune.schema import BenchmarkResult, Prediction, Question

_NUM_NAMED = 5
PROTOCOLS: Mapping[Profile, str] = {
    "llava15": "LLaVA-1.5's evaluation scripts (scripts/v1_5/eval)",
    "lmms_eval": "lmms-eval 0.7.3",
}
"""What each profile follows to the letter; where lmms-eval has changed, that version decides."""


@dataclass(frozen=True)
class Joined:
    """Answers by question key. `notes` names what could not be joined."""

    answers: Mapping[str, Prediction]
    num_questions: int
    num_missing: int
    notes: tuple[str, ...]

    def text(self, key: str) -> str | None:
        """The answer to a question; None where there is none."""
        answer = self.answers.get(key)
        return None if answer is None else answer.text

    def make_result(
        self,
        benchmark: str,
        profile: Profile,
        metrics: Mapping[str, float],
        credits: Mapping[str, float],
        notes: Sequence[str],
        **provenance: Any,
    ) -> BenchmarkResult:
        """The benchmark's result over these answers; empty notes are left out.

        Args:
            benchmark: its name.
            profile: whose rules were applied; provenance names their version.
            metrics: under their official names.
            credits: per question, in [0, 1].
            notes: everything to be said about the number.
            provenance: `scale` (what 1 stands for), `data_version`, the benchmark's own, and
                `groups`: metric -> what the ids begin with of the questions whose mean credit it
                is (empty: of all).
        """
        return BenchmarkResult(
            benchmark=benchmark,
            metrics=metrics,
            num_examples=self.num_questions,
            num_missing=self.num_missing,
            profile=profile,
            provenance={
                "protocol": _name_protocol(benchmark, profile),
                "data_version": f"{self.num_questions} questions",
                **provenance,
            },
            per_question=credits,
            notes=tuple(note for note in notes if note),
        )


def _name_protocol(benchmark: str, profile: Profile) -> str:
    plugin = next(iter(describe_plugin("BENCHMARKS", benchmark).values()), "")
    return f"its plugin's own ({plugin.split()[0]})" if plugin else PROTOCOLS[profile]


def read_predictions(path: Path, id_keys: Sequence[str] = ID_KEYS) -> list[Prediction]:
    """Read an answer file as it stands.

    Args:
        path: of the file.
        id_keys: under which its ids may stand.

    Raises:
        UserError: names file, line number and key.
    """
    predictions = [
        parse_prediction(record, where, id_keys) for where, record in read_answer_objects(path)
    ]
    if not predictions:
        raise UserError(f"{path}: no answers in it")
    return predictions


def parse_prediction(
    record: Mapping[str, Any], where: str, id_keys: Sequence[str] = ID_KEYS
) -> Prediction:
    """One record of an answer file.

    Raises:
        UserError: a key is missing or has the wrong type, or `text` may be the question.
    """
    id_key, text_keys = _find_keys(tuple(record), tuple(id_keys))
    text_key = text_keys[0]
    if id_key not in record or text_key not in record:
        require_keys(record, (id_key, text_key), where)
    if len(text_keys) > 1 and text_key == "text" and "prompt" not in record:
        raise UserError(
            f"{where}: both {text_key!r} and {text_keys[1]!r}: which is the model's answer? Take "
            "the other out, or name the question `prompt`, as LLaVA's files do"
        )
    metadata = record.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise UserError(f"{where}: metadata: expected an object, found {reprlib.repr(metadata)}")
    return Prediction(
        question_id=to_id(record[id_key], f"{where}: {id_key}"),
        prompt=str(record.get("prompt") or ""),
        text=to_text(record[text_key], f"{where}: {text_key}"),
        answer_id=str(record.get("answer_id") or ""),
        model_id=str(record.get("model_id") or ""),
        metadata=metadata,
    )


@lru_cache
def _find_keys(found: tuple[str, ...], id_keys: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Under which a record has its id and its answers; where it has none, the first of each."""
    texts = tuple(key for key in TEXT_KEYS if key in found)
    return next((key for key in id_keys if key in found), id_keys[0]), texts or TEXT_KEYS[:1]


def format_prediction(prediction: Prediction) -> bytes:
    """One line of an answer file, newline included."""
    record = {
        "question_id": prediction.question_id,
        "prompt": prediction.prompt,
        "text": prediction.text,
        "answer_id": prediction.answer_id,
        "model_id": prediction.model_id,
        "metadata": dict(prediction.metadata),
    }
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write an answer file atomically."""
    write_atomic(path, b"".join(map(format_prediction, predictions)))


def append_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Add answers to the end of an answer file."""
    with path.open("ab") as file:
        file.write(b"".join(map(format_prediction, predictions)))


def id_key(item: Question | Prediction) -> str:
    """The id as text: some files store numbers, others the same numbers as text."""
    return str(item.question_id)


def join_predictions(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    question_key: Callable[[Question], str] = id_key,
    prediction_key: Callable[[Prediction], str] = id_key,
    missing: str = "{} question(s) without an answer, counted as wrong",
) -> Joined:
    """Answers by question key, and notes on all that has no partner.

    Args:
        questions: the benchmark's.
        predictions: as they stand in the file.
        question_key: of a question.
        prediction_key: of an answer.
        missing: the note on questions without an answer, with their number as {}.

    Raises:
        UserError: question keys repeat, or not one answer belongs to a question (wrong file).
    """
    known = _unique_keys(questions, question_key)
    answers: dict[str, Prediction] = {}
    repeated, conflicting, unknown = [], set(), []
    for prediction in predictions:
        key = prediction_key(prediction)
        if key not in known:
            unknown.append(key)
        elif key in answers:
            repeated.append(key)
            if answers[key].text != prediction.text:
                conflicting.add(key)
        else:
            answers[key] = prediction
    if predictions and not answers:
        raise UserError(
            f"not one of the {len(predictions)} answers belongs to a question: answers have ids "
            f"such as {unknown[0]!r}, questions such as {next(iter(known), None)!r}; "
            "is this the answer file of another benchmark or version?"
        )
    for key in conflicting:
        del answers[key]
    unanswered = [key for key in known if key not in answers and key not in conflicting]
    notes = [
        name_keys(unanswered, missing),
        name_keys(
            sorted(conflicting), "{} question(s) answered twice differently, no answer taken"
        ),
        name_keys(
            sorted(set(repeated) - conflicting), "{} question(s) answered more than once, the same"
        ),
        name_keys(sorted(set(unknown)), "{} unknown question id(s), left out"),
    ]
    num_missing = len(unanswered) + len(conflicting)
    return Joined(answers, len(questions), num_missing, tuple(note for note in notes if note))


def name_keys(keys: Sequence[str], what: str) -> str:
    """`what` with the number of keys in it, and the first few keys; empty when there are none."""
    if not keys:
        return ""
    more = ", ..." if len(keys) > _NUM_NAMED else ""
    return f"{what.format(len(keys))}: {', '.join(keys[:_NUM_NAMED])}{more}"


def find_foreign_prompts(questions: Sequence[Question], joined: Joined) -> list[str]:
    """Keys of answers whose stored prompt does not contain the question they are joined to.

    Compared without regard to case and spacing; an answer without stored prompt passes. The
    question's own words are `metadata["question"]`.
    """
    foreign = []
    for question in questions:
        answer = joined.answers.get(id_key(question))
        if answer is None or not answer.prompt:
            continue
        asked = question.metadata["question"]
        if asked not in answer.prompt and fold_text(asked) not in fold_text(answer.prompt):
            foreign.append(id_key(question))
    return foreign


def fold_text(text: str) -> str:
    """Case folded, white space collapsed."""
    return " ".join(text.casefold().split())


def _unique_keys(
    questions: Sequence[Question], question_key: Callable[[Question], str]
) -> dict[str, Question]:
    known: dict[str, Question] = {}
    for question in questions:
        key = question_key(question)
        if key in known:
            raise UserError(f"the annotations hold question {key!r} twice; expected unique ids")
        known[key] = question
    return known
