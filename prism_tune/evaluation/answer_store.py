"""Where answers and results lie: an unfinished evaluation works aside, and replaces at the end.

In: answers. Out: `<stem>.jsonl` in LLaVA's answer format and in question order. An answer's
`answer_id` is a hash of everything it depends on, so that an answer is reused, out of a finished
evaluation or a killed one, only where nothing changed.

Readers look into `runs/<name>/evaluation/<benchmark>/`. An evaluation writes into
`runs/<name>/unfinished/evaluation/<benchmark>/`, `stage.json` last, and then takes the other's
place: until then whatever was finished stays as it is.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from prism_tune.errors import UserError
from prism_tune.evaluation.predictions import (
    append_predictions,
    parse_prediction,
    write_predictions,
)
from prism_tune.processes import rank
from prism_tune.run.folder import RunDir, read_json, read_object, write_json
from prism_tune.run.replace import replace_folder
from prism_tune.run.stage import Stage
from prism_tune.schema import Prediction

logger = logging.getLogger(__name__)


_PROMPT_NOTES = "server_prompts.json"


@dataclass(frozen=True)
class ResultFolder:
    """One benchmark's results in a run.

    Attributes:
        finished: where readers look.
        unfinished: where an evaluation works; has a `stage.json` only when all is there.
        reuse: take over what the finished evaluation has and that has not changed.
    """

    finished: Path
    unfinished: Path
    reuse: bool = True

    @classmethod
    def of(cls, run: RunDir, benchmark: str, *, reuse: bool = True) -> ResultFolder:
        """The folder of a benchmark."""
        aside = run.root / "unfinished" / "evaluation" / benchmark
        return cls(run.benchmark(benchmark), aside, reuse)

    @property
    def sources(self) -> list[Path]:
        """Folders whose answers may be taken over."""
        return [self.finished, self.unfinished] if self.reuse else [self.unfinished]

    def read_finished(self) -> dict[str, Any]:
        """The finished `results.json`; empty where there is none, or what is there is damaged."""
        path = self.finished / "results.json"
        try:
            return read_object(path) if path.exists() else {}
        except UserError:
            return {}

    def read_prompt_notes(self) -> list[str]:
        """What `keep_prompt_notes` has kept beside answers that may be taken over."""
        paths = (folder / _PROMPT_NOTES for folder in self.sources)
        found = [note for path in paths if path.exists() for note in read_json(path)]
        return list(dict.fromkeys(found))

    def keep_prompt_notes(self, notes: Sequence[str]) -> None:
        """Keep beside the answers how the prompts of the server that gave them differ."""
        write_json(self.unfinished / _PROMPT_NOTES, list(notes))

    def open(self) -> None:
        """Make ready to work; without reuse, from nothing. Main process only."""
        if not self.reuse and self.unfinished.exists():
            shutil.rmtree(self.unfinished)
        self.unfinished.mkdir(parents=True, exist_ok=True)
        Stage(self.unfinished).reopen()

    def publish(self) -> None:
        """Put a complete unfinished folder into the finished one's place. Main process only.

        Also before anything is looked at: then it completes a replacing that was killed. What has
        no successor (a judge's grades) is kept.
        """
        replace_folder(self.unfinished, self.finished)
        for folder in (self.unfinished.parent, self.unfinished.parent.parent):
            with suppress(OSError):  # not there, or another benchmark has something in it
                folder.rmdir()


@dataclass(frozen=True)
class AnswerStore:
    """The answers of one benchmark (or of one control of it).

    Each process appends to its own `<stem>.rank-<r>.jsonl`; the main one merges them.
    """

    folder: ResultFolder
    stem: str

    @property
    def path(self) -> Path:
        """The merged answer file, complete once every question is answered."""
        return self.folder.unfinished / f"{self.stem}.jsonl"

    def mend(self) -> None:
        """Drop lines torn by a kill; their questions are asked again. Main process only."""
        for path in self._files(self.folder.unfinished):
            answers, num_broken = _salvage(path)
            if num_broken:
                logger.info("%s: %d broken line(s) dropped, answered again", path, num_broken)
                write_predictions(path, answers)

    def read(self) -> dict[str, Prediction]:
        """Every stored answer, of all processes and of a finished evaluation, by `answer_id`."""
        files = [path for folder in self.folder.sources for path in self._files(folder)]
        found = [answer for path in files for answer in _salvage(path)[0]]
        return {answer.answer_id: answer for answer in found}

    def append(self, answers: Iterable[Prediction]) -> None:
        """Add answers to this process's file, at once on disk for a reader or after a kill."""
        append_predictions(self.folder.unfinished / f"{self.stem}.rank-{rank()}.jsonl", answers)

    def merge(self, answer_ids: Sequence[str]) -> list[Prediction]:
        """Write the answers in this order as one file. Main process only, after a barrier.

        Answers to questions not asked any more (beyond `limit`) are left out.
        """
        stored = self.read()
        answers = [stored[answer_id] for answer_id in answer_ids]
        write_predictions(self.path, answers)
        for path in self._files(self.folder.unfinished):
            if path != self.path:
                path.unlink()
        return answers

    def _files(self, folder: Path) -> list[Path]:
        parts = sorted(folder.glob(f"{self.stem}.rank-*.jsonl"))
        merged = folder / f"{self.stem}.jsonl"
        return [*parts, merged] if merged.exists() else parts


def _salvage(path: Path) -> tuple[list[Prediction], int]:
    """Every readable line of an answer file that may have been torn, and how many are not.

    A last line without its line break counts as torn even where it can be read.
    """
    content = path.read_bytes()
    lines = [line for line in content.split(b"\n") if line.strip()]
    parsed = [_parse_line(line) for line in lines]
    answers = [answer for answer in parsed if answer is not None]
    is_torn = bool(content) and not content.endswith(b"\n")
    return answers, max(len(lines) - len(answers), int(is_torn))


def _parse_line(line: bytes) -> Prediction | None:
    try:
        return parse_prediction(orjson.loads(line), "")
    except (orjson.JSONDecodeError, UserError):
        return None
