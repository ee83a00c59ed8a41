"""Answers on disk while a benchmark runs: append, repair after a kill, resume, merge.

In: answers, and what they depend on. Out: `<stem>.jsonl` in LLaVA's answer format and in question
order; beside it `<stem>.inputs.json`, what the answers were made with. An answer's `answer_id` is
a hash of everything it depends on, so that an answer is reused only where nothing changed.
Of several processes each appends to its own `<stem>.rank-<r>.jsonl`; the main one merges them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prism_tune.evaluation.predictions import (
    append_predictions,
    salvage_predictions,
    write_predictions,
)
from prism_tune.processes import rank, world_size
from prism_tune.run.folder import read_json, write_json
from prism_tune.schema import Prediction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnswerStore:
    """The answers of one benchmark (or of one control of it) under `folder`."""

    folder: Path
    stem: str = "predictions"

    @property
    def path(self) -> Path:
        """The merged answer file, complete once every question is answered."""
        return self.folder / f"{self.stem}.jsonl"

    @property
    def inputs_path(self) -> Path:
        """What the stored answers depend on."""
        return self.folder / f"{self.stem}.inputs.json"

    @property
    def own_path(self) -> Path:
        """Where this process appends."""
        if world_size() == 1:
            return self.path
        return self.folder / f"{self.stem}.rank-{rank()}.jsonl"

    def prepare(self, inputs: Mapping[str, Any]) -> None:
        """Keep the answers made with the same inputs, mended; remove others. Main process only.

        Args:
            inputs: JSON values by the name shown when one changed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        changed = self._changed_inputs(inputs)
        for path in self._files():
            if changed:
                logger.info("%s: answered afresh (changed: %s)", path, ", ".join(changed))
                path.unlink()
            else:
                _mend(path)
        write_json(self.inputs_path, inputs)

    def clear(self) -> None:
        """Remove every stored answer. Main process only."""
        for path in self._files():
            path.unlink()

    def read(self) -> dict[str, Prediction]:
        """Every stored answer, of all processes, by its `answer_id`."""
        found = [answer for path in self._files() for answer in salvage_predictions(path)[0]]
        return {answer.answer_id: answer for answer in found}

    def append(self, answers: Iterable[Prediction]) -> None:
        """Add answers to this process's file, at once on disk for a reader or after a kill."""
        append_predictions(self.own_path, answers)

    def merge(self, answer_ids: Sequence[str]) -> list[Prediction]:
        """Write the answers in this order as one file. Main process only, after a barrier.

        Answers to questions not asked any more (beyond `limit`) are left out.
        """
        stored = self.read()
        answers = [stored[answer_id] for answer_id in answer_ids]
        write_predictions(self.path, answers)
        for path in self._files():
            if path != self.path:
                path.unlink()
        return answers

    def _files(self) -> list[Path]:
        parts = sorted(self.folder.glob(f"{self.stem}.rank-*.jsonl"))
        return [*parts, self.path] if self.path.exists() else parts

    def _changed_inputs(self, inputs: Mapping[str, Any]) -> list[str]:
        if not self.inputs_path.exists():
            return ["origin unknown"] if self._files() else []
        before = read_json(self.inputs_path)
        now = orjson.loads(orjson.dumps(inputs))
        return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _mend(path: Path) -> None:
    """Drop a last line torn by a kill, and other broken ones; their questions are asked again."""
    answers, num_broken = salvage_predictions(path)
    if num_broken:
        logger.info("%s: %d broken line(s) dropped, answered again", path, num_broken)
        write_predictions(path, answers)
