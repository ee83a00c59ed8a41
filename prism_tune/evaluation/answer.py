"""A vision benchmark's evaluation: its questions are put to the model, the answers are scored.

In: the config and the benchmark's name, then a decoder. Out: `predictions[.<control>].jsonl`, the
official submission file, and a `BenchmarkResult`. Every process answers its share; what an earlier
attempt left is not asked again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism_tune.config.depends import fields_of
from prism_tune.config.plugins import describe_plugin
from prism_tune.config.sections import Config, Control
from prism_tune.evaluation.answer_store import AnswerStore, ResultFolder
from prism_tune.evaluation.decoding.counts import Counts, add_counts
from prism_tune.evaluation.decoding.prompts import Answer, Request
from prism_tune.evaluation.generate import Decoder, computed_here
from prism_tune.evaluation.images import ImageFiles, leave_out_refused
from prism_tune.evaluation.questions import (
    Questions,
    apply_control,
    check_names,
    list_skipped,
    load_questions,
    note_skipped,
    open_images,
    skip_questions,
)
from prism_tune.evaluation.serving.server import Server
from prism_tune.models.adapters import name_base
from prism_tune.models.processor import load_processor
from prism_tune.processes import barrier, gather, is_main, rank, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.progress import UnitProgress
from prism_tune.run.timings import StageTimer
from prism_tune.schema import BenchmarkResult, Prediction, Question, Skipped

logger = logging.getLogger(__name__)

_NUM_CHECKED = 4
_NOT_OF_AN_ANSWER = {"seed", "data.policy", "evaluation.controls", "limit", "images", "metric"}
"""Inputs that no single answer depends on: they add or take away questions, or score them."""


@dataclass(frozen=True)
class Asked:
    """A question as it is put to the model."""

    question: Question
    request: Request
    answer_id: str


@dataclass(frozen=True)
class VisionEvaluation:
    """One benchmark of a config, checked and ready to be answered.

    Attributes:
        questions: of the benchmark.
        images: theirs.
        skipped: by their place, the questions that are not asked.
        rounds: the questions that are asked: as they are (under None) and under each control.
        inputs: everything the result depends on, by the name shown when it changed.
        annotations: where the questions come from.
        model_id: stored with each answer.
    """

    questions: Questions
    images: ImageFiles
    skipped: Mapping[int, Skipped]
    rounds: Mapping[Control | None, Sequence[Question]]
    inputs: Mapping[str, Any]
    annotations: str
    model_id: str

    @property
    def name(self) -> str:
        """The benchmark's."""
        return self.questions.benchmark.name

    @property
    def answer_inputs(self) -> dict[str, Any]:
        """What every single answer depends on."""
        return {k: v for k, v in computed_here(self.inputs).items() if k not in _NOT_OF_AN_ANSWER}

    def run(
        self, decoder: Decoder | Server, folder: ResultFolder, timer: StageTimer | None
    ) -> BenchmarkResult | None:
        """Answer what is not answered yet, and score; the result on the main process."""
        for note in note_skipped(self.skipped, len(self.questions.listed)):
            logger.warning("evaluation/%s: %s", self.name, note)
        stores = {control: _open_store(folder, control) for control in self.rounds}
        asked = {
            control: [self._ask(question, decoder) for question in questions]
            for control, questions in self.rounds.items()
        }
        notes = self._check(decoder, asked, stores)
        answers = [
            self._answer(control, asked[control], decoder, stores[control], timer)
            for control in self.rounds
        ]
        if not is_main():
            return None
        benchmark = self.questions.benchmark
        if benchmark.write_submission is not None:
            benchmark.write_submission(self.questions.listed, answers[0], folder.unfinished)
        result = self._score(answers)
        return replace(result, notes=(*notes, *result.notes))

    def _check(
        self,
        decoder: Decoder | Server,
        asked: Mapping[Control | None, Sequence[Asked]],
        stores: Mapping[Control | None, AnswerStore],
    ) -> list[str]:
        """What a server's prompts differ in; a model in memory has ours.

        What was found when the answers were given that are there stands: where all is answered, no
        server has to run.
        """
        if not isinstance(decoder, Server) or not is_main():
            return []
        pending = [len(_list_pending(asked[control], stores[control])) for control in asked]
        folder = stores[None].folder
        is_begun = sum(pending) < sum(map(len, asked.values()))
        notes = folder.read_prompt_notes() if is_begun else []
        if any(pending):
            notes += decoder.check([item.request for item in asked[None][:_NUM_CHECKED]])
            notes = list(dict.fromkeys(notes))
        folder.keep_prompt_notes(notes)
        return notes

    def _answer(
        self,
        control: Control | None,
        asked: Sequence[Asked],
        decoder: Decoder | Server,
        store: AnswerStore,
        timer: StageTimer | None,
    ) -> list[Prediction]:
        """One prediction per question, in their order; on other processes than the main nothing."""
        pending = _list_pending(asked, store)
        if is_main() and len(pending) < len(asked):
            logger.info("%s: %d answers are there already", store.path, len(asked) - len(pending))
        barrier()
        share = pending[rank() :: world_size()]
        own = self._answer_share(control, share, decoder, store, timer) if share else {}
        per_process = gather(own)  # everybody has answered
        if not is_main():
            return []
        if timer:
            for counts in per_process[1:]:  # its own are counted already
                timer.tick(**counts)
        return store.merge([item.answer_id for item in asked])

    def _ask(self, question: Question, decoder: Decoder | Server) -> Asked:
        prompt = decoder.render(question.text, len(question.images))
        request = Request(
            prompt, tuple(self.images.paths[image] for image in question.images), question.text
        )
        shown = [self.images.hashes[image] for image in question.images]
        depends_on = [self.answer_inputs, question.question_id, prompt, shown]
        return Asked(question, request, fingerprint(depends_on)[:22])

    def _answer_share(
        self,
        control: Control | None,
        share: Sequence[Asked],
        decoder: Decoder | Server,
        store: AnswerStore,
        timer: StageTimer | None,
    ) -> Counts:
        """Answer and store this process's questions; returns what that has gone through."""
        title = f"evaluation/{self.name}" + (f" ({control})" if control else "")
        logger.info("%s: %d questions to answer", title, len(share))
        waiting: defaultdict[Request, list[Asked]] = defaultdict(list)
        for asked in share:
            waiting[asked.request].append(asked)
        total: Counts = {}
        max_new_tokens = self.inputs["max_new_tokens"]
        with UnitProgress(len(share), title) as progress:
            for answers in decoder.answer(list(waiting), max_new_tokens=max_new_tokens):
                batch = [
                    _predict(asked, answer, self.model_id)
                    for request, answer in answers.items()
                    for asked in waiting[request]
                ]
                store.append(batch)
                progress.advance(len(batch))
                counts = {"questions": len(batch), **decoder.counter.take()}
                total = add_counts(total, counts)
                if timer:
                    timer.tick(**counts)
        return total

    def _score(self, answers: Sequence[list[Prediction]]) -> BenchmarkResult:
        """The benchmark's result, its controls' metrics beside its own (`<metric>_<control>`)."""
        benchmark, profile = self.questions.benchmark, self.inputs["evaluation.profile"]
        results = [benchmark.score(self.questions.listed, given, profile) for given in answers]
        metrics = dict(results[0].metrics)
        for control, result in zip(self.rounds, results, strict=True):
            if control:
                metrics |= {f"{name}_{control}": value for name, value in result.metrics.items()}
        named = {name.rpartition(".")[2]: value for name, value in self.inputs.items()}
        provenance = {
            **results[0].provenance,
            **named,
            **list_skipped(self.skipped),
            "decoding": {"do_sample": False, "num_beams": 1},
            "annotations": self.annotations,
        }
        skipped = note_skipped(self.skipped, len(self.questions.listed))
        notes = (*skipped, *results[0].notes, *_note_lengths(answers[0]))
        return replace(results[0], metrics=metrics, provenance=provenance, notes=notes)


def open_vision(config: Config, name: str, checkpoint_fingerprint: str) -> VisionEvaluation:
    """Load a benchmark's questions and look at all their images.

    Raises:
        ConfigError: no `evaluation.data` for it.
        UserError: no such benchmark, bad annotations, annotations that can score but not ask,
            images that cannot be used and whose policy is "fail", a control that cannot be made or
            whose metrics would have a category's names.
    """
    questions = load_questions(config, name)
    check_names(questions, config.evaluation.controls)
    images = open_images(questions, num_workers=config.data.num_workers)
    if images.strips:
        images = leave_out_refused(images, load_processor(name_base(config.model)))
    skipped = skip_questions(questions, images, config.data.policy)
    answerable = [q for number, q in enumerate(questions.listed) if number not in skipped]
    controls = config.evaluation.controls
    return VisionEvaluation(
        questions=questions,
        images=images,
        skipped=skipped,
        rounds={
            None: answerable,
            **{
                control: apply_control(control, answerable, images.hashes, seed=config.seed)
                for control in controls
            },
        },
        inputs={
            **fields_of(config, "answers"),
            "checkpoint": checkpoint_fingerprint,
            "data": questions.checksum,
            "images": images.checksum(Path(config.evaluation.data[name].annotations)),
            "limit": config.evaluation.data[name].limit,
            **({"metric": metric} if (metric := config.evaluation.data[name].metric) else {}),
            **describe_plugin("BENCHMARKS", name),
            "max_new_tokens": questions.benchmark.max_new_tokens[config.evaluation.profile],
        },
        annotations=config.evaluation.data[name].annotations,
        model_id=config.name,
    )


def _open_store(folder: ResultFolder, control: Control | None) -> AnswerStore:
    """Its torn lines mended, before any process reads it."""
    store = AnswerStore(folder, f"predictions.{control}" if control else "predictions")
    if is_main():
        store.mend()
    barrier()
    return store


def _list_pending(asked: Sequence[Asked], store: AnswerStore) -> list[Asked]:
    answered = store.read()
    return [item for item in asked if item.answer_id not in answered]


def _predict(asked: Asked, answer: Answer, model_id: str) -> Prediction:
    return Prediction(
        question_id=asked.question.question_id,
        prompt=asked.question.text,
        text=answer.text,
        answer_id=asked.answer_id,
        model_id=model_id,
        metadata={
            "num_new_tokens": answer.num_new_tokens,
            "finished": answer.finished,
            **({"beyond_window": True} if answer.beyond_window else {}),
        },
    )


def _note_lengths(answers: Sequence[Prediction]) -> list[str]:
    num_cut = sum(not answer.metadata["finished"] for answer in answers)
    num_beyond = sum(bool(answer.metadata.get("beyond_window")) for answer in answers)
    cut = f"{num_cut} answer(s) were cut off at max_new_tokens"
    beyond = f"{num_beyond} prompt(s) with their answers may pass the model's window; none was cut"
    return [*([cut] if num_cut else []), *([beyond] if num_beyond else [])]
