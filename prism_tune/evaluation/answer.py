"""Answering one benchmark's questions, on every process, resuming what an earlier attempt left.

In: a plan, a control (or none) and a decoder. Out: `predictions[.<control>].jsonl` and its content.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prism_tune.config.sections import Control
from prism_tune.evaluation.answer_store import AnswerStore
from prism_tune.evaluation.controls import apply_control
from prism_tune.evaluation.generate import Answer, GreedyDecoder, Request
from prism_tune.evaluation.images import locate_images
from prism_tune.evaluation.meter import Counts, add_counts
from prism_tune.evaluation.plan import Plan
from prism_tune.processes import barrier, gather, is_main, rank, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.timings import StageTimer
from prism_tune.schema import Prediction, Question

logger = logging.getLogger(__name__)

Render = Callable[[str, int], str]
"""(question text, number of images) -> the prompt under the model's template."""


@dataclass(frozen=True)
class Asked:
    """A question as it is put to the model."""

    question: Question
    request: Request
    answer_id: str


@dataclass(frozen=True)
class Round:
    """A benchmark's questions, as they are or under a control, and where their answers go.

    Attributes:
        plan: the benchmark.
        control: None for the benchmark itself.
        seed: of the exchange of images.
        inputs: what the answers depend on, by the name shown when it changed.
        render: the model's template.
        model_id: stored with each answer.
    """

    plan: Plan
    control: Control | None
    seed: int
    inputs: Mapping[str, Any]
    render: Render
    model_id: str

    @property
    def store(self) -> AnswerStore:
        """Where the answers go."""
        stem = f"predictions.{self.control}" if self.control else "predictions"
        return AnswerStore(self.plan.folder, stem)

    @property
    def title(self) -> str:
        """What the progress bar says."""
        return f"{self.plan.title} ({self.control})" if self.control else self.plan.title

    @cached_property
    def asked(self) -> list[Asked]:
        """Every question that is asked, in the benchmark's order."""
        questions = self.plan.answerable
        if self.control:
            questions = apply_control(self.control, questions, seed=self.seed)
        images = {image for question in questions for image in question.images}
        paths = locate_images(images, self.plan.image_dir, self.plan.image_cache)
        return [self._ask(question, paths) for question in questions]

    def _ask(self, question: Question, paths: Mapping[str, Path]) -> Asked:
        sizes = [self.plan.image_sizes[image] for image in question.images]
        prompt = self.render(question.text, len(question.images))
        request = Request(prompt, tuple(paths[image] for image in question.images))
        depends_on = [self.inputs, question.question_id, prompt, question.images, sizes]
        return Asked(question, request, fingerprint(depends_on)[:22])


def answer_round(
    asked_round: Round,
    load_decoder: Callable[[], GreedyDecoder],
    timer: StageTimer | None,
) -> list[Prediction]:
    """Answer what is not answered yet, each process its share.

    Args:
        asked_round: the questions.
        load_decoder: called only when something is left to answer.
        timer: counts questions, images, tokens and FLOPs of all processes; None on all but the
            main one.

    Returns:
        One prediction per question, in their order; on other processes than the main one nothing.
    """
    store = asked_round.store
    if is_main():
        store.prepare(asked_round.inputs)
    barrier()
    answered = store.read()
    pending = [asked for asked in asked_round.asked if asked.answer_id not in answered]
    num_known = len(asked_round.asked) - len(pending)
    if num_known and is_main():
        logger.info("%s: %d answers are there already", store.path, num_known)
    barrier()
    share = pending[rank() :: world_size()]
    own: Counts = {}
    if share:
        logger.info("%s: %d questions to answer", asked_round.title, len(share))
        own = _answer_share(asked_round, share, load_decoder(), timer)
    per_process = gather(own)  # everybody has answered
    if not is_main():
        return []
    if timer:
        for counts in per_process[1:]:  # its own are counted already
            timer.tick(**counts)
    return store.merge([asked.answer_id for asked in asked_round.asked])


def _answer_share(
    asked_round: Round, share: list[Asked], decoder: GreedyDecoder, timer: StageTimer | None
) -> Counts:
    """Answer and store this process's questions; returns what that has gone through."""
    waiting: defaultdict[Request, list[Asked]] = defaultdict(list)
    for asked in share:
        waiting[asked.request].append(asked)
    max_new_tokens = asked_round.inputs["max_new_tokens"]
    total: Counts = {}
    with _progress() as progress:
        bar = progress.add_task(
            f"{asked_round.plan.title} {asked_round.control or ''}", total=len(share)
        )
        for answers in decoder.answer(list(waiting), max_new_tokens=max_new_tokens):
            batch = [
                _predict(asked, answer, asked_round.model_id)
                for request, answer in answers.items()
                for asked in waiting[request]
            ]
            asked_round.store.append(batch)
            progress.advance(bar, len(batch))
            counts = {"questions": len(batch), **decoder.meter.take()}
            total = add_counts(total, counts)
            if timer:
                timer.tick(**counts)
    return total


def _predict(asked: Asked, answer: Answer, model_id: str) -> Prediction:
    return Prediction(
        question_id=asked.question.question_id,
        prompt=asked.question.text,
        text=answer.text,
        answer_id=asked.answer_id,
        model_id=model_id,
        metadata={"num_new_tokens": answer.num_new_tokens, "finished": answer.finished},
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not is_main(),
    )
