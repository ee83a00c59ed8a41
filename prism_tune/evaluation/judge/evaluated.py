"""What a judge gave, scored; the `results.json` of `evaluate` beside the answers takes the score.

Only that of the very answers: a control's or somebody's file in the same folder changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prism_tune.evaluation.predictions import id_key
from prism_tune.evaluation.score import find_benchmark, result_to_json, score
from prism_tune.run.folder import read_object, write_json
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
    result = score(benchmark, given, judged.annotations, only=asked)
    unjudged = score(benchmark, judged.predictions, judged.annotations, only=asked)
    others = [note for note in before.get("notes", []) if note not in unjudged.notes]
    write_json(path, _update(before, result, others, judged.inputs["table"]))
    logger.info("%s: takes the judge's score", path)
    return result


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
