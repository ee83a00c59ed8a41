"""What flows between the stages: frozen dataclasses, no torch.

`Record` (a pool's row) -> scores -> subset -> checkpoint -> `Prediction` -> `BenchmarkResult`
-> table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Role = Literal["human", "gpt"]
IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; `text` keeps its `<image>` placeholders.

    `has_loss`: whether an answer is learnt; a question never is.
    """

    role: Role
    text: str
    has_loss: bool = True


@dataclass(frozen=True)
class Record:
    """One visual-instruction record.

    `uid` is a hash of the content (images, turns and system line), because `id` repeats in the
    wild. `images` are names that the pool's `image_folders` finds: mostly paths relative to its
    image folder; empty for a text-only record. `system` stands in place of the template's own
    system line where it is not empty.
    """

    uid: str
    id: str
    source: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    system: str = ""

    @property
    def is_text_only(self) -> bool:
        """True when the record has no image."""
        return not self.images


@dataclass(frozen=True)
class Skipped:
    """A record left out, and why. Nothing is ever left out without one of these."""

    uid: str
    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Question:
    """One benchmark question as it is put to a model.

    `text` is the user's message without image placeholder; `reference` is what the benchmark's
    metric compares with (a string, or the benchmark's own structure), None where withheld.
    """

    question_id: str | int
    text: str
    images: tuple[str, ...]
    reference: Any
    category: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """One answer, in the LLaVA answer-file format (one JSON object a line)."""

    question_id: str | int
    prompt: str
    text: str
    answer_id: str = ""
    model_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkResult:
    """A benchmark's metrics under their official names, with what is needed to reproduce them.

    `per_question` maps each question id to its credit in [0, 1] (for paired bootstraps).
    """

    benchmark: str
    metrics: Mapping[str, float]
    num_examples: int
    num_missing: int
    profile: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    per_question: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Change = Literal[
    "right before, wrong now", "wrong before, right now", "right in both", "wrong in both"
]
"""What became of a question from one run to another; right is more than half of the credit."""


class PlacedImage(NamedTuple):
    """Where an image should be: a folder that it may not lie outside of, and its name there.

    `is_embedded`: a copy out of an annotation file, named by its content; no name: none was in it.
    `roots`: further folders that a link may lead into.
    """

    folder: Path
    name: str
    is_embedded: bool = False
    roots: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Answered:
    """One benchmark of a finished run, question by question.

    Attributes:
        rows: benchmark, question_id, category, image, question, prompt, reference, answer, score
            and right of each; None where there is no value.
        images: of each row, in their order.
        profile: that it was asked under.
        has_questions: the annotations are there and unchanged.
        notes: what is missing, and why.
    """

    rows: list[dict[str, Any]]
    images: list[tuple[PlacedImage, ...]]
    profile: str = ""
    has_questions: bool = True
    notes: list[str] = field(default_factory=list)
