"""What a benchmark is: four functions and two numbers. `benchmarks/` holds one file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_tune.config.sections import Profile
from prism_tune.schema import BenchmarkResult, Prediction, Question


@dataclass(frozen=True)
class Benchmark:
    """One benchmark under its official protocol.

    Attributes:
        name: its key in `BENCHMARKS`.
        load_questions: (annotations, profile) -> every question with its prompt text and reference.
            Raises UserError naming the file and what was expected. Text is empty where the file
            holds references alone (it can score, not ask). Images are paths relative to the image
            folder, `parquet:<file>#<row>#<column>`, or data URIs.
        read_predictions: an answer file or folder in any of the benchmark's published layouts ->
            predictions, as they stand in it.
        score: (questions, predictions, profile) -> the official metrics. Predictions are joined by
            id, never by position; missing, duplicate and unknown ids are named in `notes`.
        write_submission: (questions, predictions, folder) -> the official submission file; None
            where the benchmark has none.
        max_new_tokens: per profile, of the official decoding.
    """

    name: str
    load_questions: Callable[[Path, Profile], list[Question]]
    read_predictions: Callable[[Path], list[Prediction]]
    score: Callable[[Sequence[Question], Sequence[Prediction], Profile], BenchmarkResult]
    max_new_tokens: Mapping[Profile, int]
    write_submission: Callable[[Sequence[Question], Sequence[Prediction], Path], Path] | None = None
