"""What a judge gave, scored; the `results.json` of `evaluate` beside the answers takes the score.

Only that of the very answers: a control's or somebody's file in the same folder changes nothing.
Where `evaluate` scores again (another control, a lower limit), the grades of unchanged answers go
with them; where they cannot, the log says what is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from prism_tune.errors import UserError
from prism_tune.evaluation.answer_store import ResultFolder
from prism_tune.evaluation.predictions import id_key, read_predictions
from prism_tune.evaluation.score import describe_file, find_benchmark, result_to_json, score
from prism_tune.run.folder import read_object, write_json
from prism_tune.run.stage import Stage
from prism_tune.schema import BenchmarkResult

logger = logging.getLogger(__name__)

_ANSWERS = "predictions.jsonl"
"""What `evaluate` writes, of which its `results.json` is."""
_KEPT = ("profile", "num_examples", "num_missing")


class Judged(Protocol):
    """Answers, the questions they are to, and `table`, the checksum of the judge's prompt."""

    @property
    def predictions(self) -> Path:
        """The answer file."""

    @property
    def annotations(self) -> Path:
        """The benchmark's."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """By the name shown when it changed."""


def score_judged(benchmark: str, given: Path | Sequence[Path], judged: Judged) -> BenchmarkResult:
    """Score the judge's files over the questions that were asked, and update the evaluation.

    Args:
        benchmark: its name.
        given: the grade file, or the review files.
        judged: what was judged.

    Raises:
        UserError: a file that is not as expected.
    """
    path = judged.predictions.parent / "results.json"
    before = read_object(path, "provenance", *_KEPT) if path.exists() else {}
    is_its_own = judged.predictions.name == _ANSWERS and before.get("benchmark") == benchmark
    if not is_its_own:
        return score(benchmark, given, judged.annotations)
    asked = _list_asked(benchmark, before, judged.predictions)
    rescore = partial(score, benchmark, profile=before["profile"], only=asked)
    result = rescore(given, judged.annotations)
    unjudged = rescore(judged.predictions, judged.annotations)
    others = [note for note in before.get("notes", []) if note not in unjudged.notes]
    after = _update(before, result, others, judged.inputs["table"])
    stage = Stage(path.parent)
    was_its_own = path.name not in stage.damaged_files()
    write_json(path, after)
    if was_its_own:  # an edited one stays damaged, and is made again
        stage.amend(path, metrics=after["metrics"])
    logger.info("%s: takes the judge's score", path)
    return result


def keep_judgement(
    folder: ResultFolder, unjudged: BenchmarkResult, annotations: Path
) -> dict[str, Any]:
    """A result that was scored again, as JSON, with the judge's score of the one it replaces.

    Args:
        folder: with the result that is replaced, if there is one, and the new answers.
        unjudged: the new result.
        annotations: the benchmark's.
    """
    content, before = result_to_json(unjudged), folder.read_finished()
    provenance = before.get("provenance") or {}
    grades = provenance.get("grades")
    if not grades:
        return content
    files = [grades] if isinstance(grades, Mapping) else list(grades)
    try:
        _require_same(folder, provenance, unjudged, files)
        asked = _list_asked(unjudged.benchmark, content, folder.unfinished / _ANSWERS)
        given = [Path(file["path"]) for file in files]
        rescore = partial(score, unjudged.benchmark, profile=content["profile"], only=asked)
        result = rescore(given, annotations)
    except UserError as error:
        logger.warning(
            "evaluation/%s: the score of judge %s is dropped: %s; `prism-tune judge` grades again",
            *(unjudged.benchmark, provenance.get("judge"), error),
        )
        return content
    own = rescore(folder.unfinished / _ANSWERS, annotations)
    others = [note for note in unjudged.notes if note not in own.notes]
    logger.info("evaluation/%s: keeps the score of its judge", unjudged.benchmark)
    return _update(content, result, others, provenance.get("judge_table", ""))


def _require_same(
    folder: ResultFolder,
    provenance: Mapping[str, Any],
    now: BenchmarkResult,
    files: Sequence[Mapping[str, str]],
) -> None:
    """Raises UserError where the grades do not go with the new answers."""
    if provenance.get("data") != now.provenance.get("data"):
        raise UserError("the questions have changed")
    for file in files:
        path = Path(file["path"])
        if not path.exists() or describe_file(path) != file:
            raise UserError(f"{path} is gone or has changed")
    before = {id_key(a): a.text for a in read_predictions(folder.finished / _ANSWERS)}
    after = read_predictions(folder.unfinished / _ANSWERS)
    num_other = sum(before.get(id_key(answer)) != answer.text for answer in after)
    if num_other:
        raise UserError(f"{num_other} of {len(after)} answers are new or have changed")


def _list_asked(benchmark: str, before: Mapping[str, Any], predictions: Path) -> set[str]:
    """Ids of the questions of an evaluation, which may have been limited."""
    answers = find_benchmark(benchmark).read_predictions(predictions)
    return set(before.get("per_question") or map(id_key, answers))


def _update(
    before: Mapping[str, Any], result: BenchmarkResult, notes: Sequence[str], table: str
) -> dict[str, Any]:
    """The evaluation's result with the judge's numbers; its controls' and its settings stay."""
    now = result_to_json(result)
    judged = dict(now["provenance"])
    described = {"grades": judged.pop("predictions"), "judge_table": table}
    endings = tuple(f"_{control}" for control in before["provenance"].get("controls", []))
    controls = {k: v for k, v in before["metrics"].items() if endings and k.endswith(endings)}
    return {
        **now,
        **{key: before[key] for key in _KEPT},
        "metrics": {**now["metrics"], **controls},
        "notes": [*now["notes"], *notes],
        "provenance": {**before["provenance"], **judged, **described},
    }
