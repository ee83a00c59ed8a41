"""Answering and scoring the benchmarks of one call, which share a model once it is needed.

In: a plan for each benchmark. Out: its answers, `results.json`, submission file and finished stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from prism_tune import __version__
from prism_tune.config.sections import Config, Control
from prism_tune.data.conversation import check_end_token, end_token, render_prompt
from prism_tune.errors import ConfigError
from prism_tune.evaluation.answer import Round, answer_round
from prism_tune.evaluation.controls import add_control_metrics
from prism_tune.evaluation.generate import GreedyDecoder
from prism_tune.evaluation.plan import Plan
from prism_tune.evaluation.score import result_to_json
from prism_tune.evaluation.screening import list_skipped, note_skipped
from prism_tune.models.adapters import name_base
from prism_tune.models.checkpoint import load_tuned
from prism_tune.models.load import pick_device, resolve_dtype
from prism_tune.models.processor import load_processor
from prism_tune.processes import barrier, is_main, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, write_json
from prism_tune.run.log import open_log
from prism_tune.run.timings import StageTimer
from prism_tune.schema import BenchmarkResult, Prediction

if TYPE_CHECKING:
    from prism_tune.evaluation.language.run import LanguagePlan

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "pillow")


class Session:
    """Processor, device and dtype of a call, and the model from the first open question on.

    Args:
        config: the experiment.
        run: its folder.
        checkpoint: the tuned model; None for the model as it is.

    Raises:
        ConfigError: a template that cannot carry a question.
        UserError: a template that does not fit the tokenizer, or no processor.
    """

    def __init__(self, config: Config, run: RunDir, checkpoint: Path | None) -> None:
        if config.model.template == "plain":
            raise ConfigError(
                "model.template: plain has no place for a question; choose the template the model "
                "was tuned with"
            )
        base = name_base(config.model)
        self._config = config = config.model_copy(update={"model": base})
        self._run = run
        self._checkpoint = checkpoint
        self._device = pick_device()
        self._dtype = resolve_dtype(config.evaluation.dtype, self._device)
        self._processor = load_processor(config.model)
        check_end_token(config.model.template, self._processor.tokenizer)
        self._load_decoder: Callable[[], GreedyDecoder] = cache(self._build_decoder)

    def run(self, plan: Plan | LanguagePlan, *, force: bool) -> None:
        """Answer and score one benchmark, and record that it finished."""
        results = plan.folder / "results.json"
        if is_main():
            plan.stage.reopen()
            results.unlink(missing_ok=True)
        barrier()
        with self._meter(plan, restart=force) as timer:
            if isinstance(plan, Plan):
                result = self._run_benchmark(plan, timer, force=force)
            else:
                result = self._run_language(plan, timer, force=force)
            if result is not None:
                write_json(results, result_to_json(result))
                plan.stage.finish(plan.inputs, config=self._config, metrics=dict(result.metrics))
        barrier()

    def _run_benchmark(
        self, plan: Plan, timer: StageTimer | None, *, force: bool
    ) -> BenchmarkResult | None:
        """A benchmark with its controls; the result on the main process."""
        controls = self._config.evaluation.controls
        rounds = [self._make_round(plan, control) for control in (None, *controls)]
        if is_main() and force:
            for asked_round in rounds:
                asked_round.store.clear()
        barrier()
        answers = [answer_round(item, self._load_decoder, timer) for item in rounds]
        if not is_main():
            return None
        if plan.benchmark.write_submission is not None:
            plan.benchmark.write_submission(plan.questions, answers[0], plan.folder)
        return self._score(plan, answers)

    def _run_language(
        self, plan: LanguagePlan, timer: StageTimer | None, *, force: bool
    ) -> BenchmarkResult | None:
        from prism_tune.evaluation.language.run import answer_language

        result = answer_language(plan, self._load_language_model, force=force)
        if result is None:
            return None
        if timer:
            timer.tick(questions=result.num_examples)
        described = {**plan.inputs, **self._describe_machine(), "annotations": plan.source}
        return replace(result, provenance={**result.provenance, **described})

    def _load_language_model(self) -> tuple[PreTrainedModel, Any]:
        return self._load_decoder().model, self._processor.tokenizer

    def _build_decoder(self) -> GreedyDecoder:
        config = self._config
        logger.info("loading %s in %s", self._checkpoint or config.model.path, self._dtype)
        return GreedyDecoder(
            load_tuned(config, self._checkpoint, dtype=self._dtype, device=self._device),
            self._processor,
            end_token=end_token(config.model.template),
            batch_size=config.evaluation.batch_size,
            num_workers=config.data.num_workers,
        )

    def _make_round(self, plan: Plan, control: Control | None) -> Round:
        config = self._config
        return Round(
            plan=plan,
            control=control,
            seed=config.seed,
            inputs=self._describe_answers(plan, control),
            render=self._render,
            model_id=config.name,
        )

    def _render(self, text: str, num_images: int) -> str:
        template = self._config.model.template
        return render_prompt(text, num_images > 0, template, self._processor, num_images)

    def _describe_answers(self, plan: Plan, control: Control | None = None) -> dict[str, Any]:
        """What an answer depends on; not `limit` and policy, which only add questions."""
        left_out = {
            "limit",
            "images",
            "data.policy",
            "controls",
            *({"seed"} if control != "shuffled" else ()),
        }
        kept = {key: value for key, value in plan.inputs.items() if key not in left_out}
        return {**kept, "dtype": str(self._dtype).removeprefix("torch.")}

    def _meter(
        self, plan: Plan | LanguagePlan, *, restart: bool
    ) -> AbstractContextManager[StageTimer | None]:
        if not is_main():
            open_log(self._run.log)
            return nullcontext()
        on_cuda = self._device.type == "cuda"
        return StageTimer(
            self._run,
            plan.title,
            fingerprint=fingerprint(plan.inputs),
            device=torch.cuda.get_device_name(self._device) if on_cuda else "cpu",
            num_devices=world_size(),
            restart=restart,
        )

    def _score(self, plan: Plan, answers: list[list[Prediction]]) -> BenchmarkResult:
        """The benchmark's result, its controls' metrics beside its own."""
        results = [
            plan.benchmark.score(plan.questions, predictions, self._config.evaluation.profile)
            for predictions in answers
        ]
        metrics = dict(results[0].metrics)
        for control, result in zip(self._config.evaluation.controls, results[1:], strict=True):
            metrics = add_control_metrics(metrics, control, result.metrics)
        provenance = {**results[0].provenance, **self._describe_run(plan)}
        notes = (*note_skipped(plan), *results[0].notes, *_describe_cut_off(answers[0]))
        return replace(results[0], metrics=metrics, provenance=provenance, notes=notes)

    def _describe_run(self, plan: Plan) -> dict[str, Any]:
        return {
            **self._describe_answers(plan),
            **self._describe_machine(),
            **list_skipped(plan),
            "decoding": {"do_sample": False, "num_beams": 1},
            "annotations": self._config.evaluation.data[plan.benchmark.name].annotations,
            "limit": plan.inputs["limit"],
            "controls": plan.inputs["controls"],
        }

    def _describe_machine(self) -> dict[str, Any]:
        return {
            "model": self._config.model.path,
            "model_revision": self._config.model.revision,
            "attn_implementation": self._config.model.attn_implementation,
            "checkpoint_path": str(self._checkpoint) if self._checkpoint else None,
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": self._device.type,
            "num_processes": world_size(),
            "evaluator": f"prism_tune {__version__}",
            "packages": {name: version(name) for name in _PACKAGES},
        }


def _describe_cut_off(answers: Sequence[Prediction]) -> list[str]:
    num_cut = sum(not answer.metadata["finished"] for answer in answers)
    return [f"{num_cut} answer(s) were cut off at max_new_tokens"] if num_cut else []
