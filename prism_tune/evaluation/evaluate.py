"""The evaluation stage: a checkpoint answers each benchmark's questions; the answers are scored.

In: the config, `training/final` (or the untuned model), the benchmarks' official files. Out, for
each benchmark: `predictions.jsonl` (LLaVA's answer format), `results.json`, the official submission
file where there is one; a table on the console.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from prism_tune.config.sections import Config
from prism_tune.data.policy import check_policy
from prism_tune.errors import ConfigError
from prism_tune.evaluation.answer import open_vision
from prism_tune.evaluation.answer_store import ResultFolder
from prism_tune.evaluation.checkpoint import (
    Checkpoint,
    describe_evaluation,
    find_checkpoint,
    opened_decoder,
)
from prism_tune.evaluation.generate import Decoder
from prism_tune.evaluation.judge.evaluated import keep_judgement
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.language.tasks import list_tasks
from prism_tune.evaluation.questions import find_data
from prism_tune.evaluation.score import tabulate_results
from prism_tune.evaluation.serving.server import Server
from prism_tune.models.devices import pick_device
from prism_tune.models.processor import resolve_template
from prism_tune.processes import barrier, is_main, world_size
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_object, write_json
from prism_tune.run.log import IN_FILE, console, open_log
from prism_tune.run.ranks import process_group, require_same, require_same_run
from prism_tune.run.stage import Stage, must_run
from prism_tune.run.timings import StageTimer
from prism_tune.run.tracking import log_artifact
from prism_tune.run.writer import one_writer
from prism_tune.schema import BenchmarkResult

logger = logging.getLogger(__name__)


class Evaluation(Protocol):
    """One benchmark of a config, of whatever kind, checked and ready to run."""

    @property
    def name(self) -> str:
        """The benchmark's."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Everything its result depends on, by the name shown when it changed."""

    @property
    def answer_inputs(self) -> Mapping[str, Any]:
        """What every single answer depends on."""

    def run(
        self, decoder: Decoder | Server, folder: ResultFolder, timer: StageTimer | None
    ) -> BenchmarkResult | None:
        """Answer and score into `folder.unfinished`; the result on the main process."""


@one_writer
def evaluate(config: Config, run: RunDir, *, force: bool) -> None:
    """Answer and score every benchmark of the config that is not finished.

    Checkpoint, data and images of all of them are looked at before anything is asked or written;
    finished results stay until new ones are there to take their place.

    Raises:
        ConfigError: a benchmark without data, or a template that cannot carry a question.
        UserError: unknown benchmark, missing training or annotations, unusable images whose
            policy is "fail", a server's command that failed.
    """
    check_policy(config.data.policy)
    config = resolve_template(config)
    checkpoint = find_checkpoint(config, run)
    names = config.evaluation.benchmarks
    _check_backend(config)
    with process_group():
        require_same_run(config)
        evaluations = [_open(config, name, checkpoint.fingerprint) for name in names]
        for evaluation in evaluations:
            require_same(evaluation.inputs)
        folders = {name: ResultFolder.of(run, name, reuse=not force) for name in names}
        if is_main():
            for folder in folders.values():
                folder.publish()
        barrier()
        due = [item for item in evaluations if _must_run(item, folders[item.name], force=force)]
        if due:
            with opened_decoder(config, checkpoint, run) as decoder:
                barrier()  # nobody replaces results that another process still has to look at
                for evaluation in due:
                    folder = folders[evaluation.name]
                    with _meter(config, run, evaluation, restart=force) as timer:
                        _run(config, checkpoint, evaluation, decoder, folder, timer)
    if is_main() and names:
        results = [
            read_object(run.benchmark(name) / "results.json", "benchmark", "metrics")
            for name in names
        ]
        console.print(tabulate_results(results))


def find_changes(config: Config, run: RunDir) -> list[str] | None:
    """What finished evaluations would run again for; None where a benchmark has none."""
    config = resolve_template(config)
    fingerprint_now = find_checkpoint(config, run).fingerprint
    reasons: list[str] = []
    for name in config.evaluation.benchmarks:
        inputs = _open(config, name, fingerprint_now).inputs
        found = Stage(run.benchmark(name)).reasons_to_rerun(inputs)
        if found is None:
            return None
        reasons += [f"{name}: {reason}" for reason in found]
    return reasons


def _check_backend(config: Config) -> None:
    language = [n for n in config.evaluation.benchmarks if n in LANGUAGE_BENCHMARKS]
    if language and config.evaluation.backend == "openai":
        raise ConfigError(
            f"evaluation.backend: openai asks no language benchmark ({', '.join(language)}), which "
            "lm-eval puts to the model in memory; evaluate these with backend `transformers`"
        )


def _open(config: Config, name: str, checkpoint_fingerprint: str) -> Evaluation:
    if name not in LANGUAGE_BENCHMARKS:
        return open_vision(config, name, checkpoint_fingerprint)
    data = find_data(config, name)
    list_tasks(name)  # says what to install where lm-eval is missing
    from prism_tune.evaluation.language.run import open_language

    return open_language(config, name, data, checkpoint_fingerprint)


def _must_run(evaluation: Evaluation, folder: ResultFolder, *, force: bool) -> bool:
    title = f"evaluation/{evaluation.name}"
    return must_run(title, Stage(folder.finished), evaluation.inputs, force=force)


def _run(
    config: Config,
    checkpoint: Checkpoint,
    evaluation: Evaluation,
    decoder: Decoder | Server,
    folder: ResultFolder,
    timer: StageTimer | None,
) -> None:
    """Answer and score one benchmark, then replace what was there before."""
    if is_main():
        folder.open()
    barrier()
    result = evaluation.run(decoder, folder, timer)
    if result is not None:
        described = {**result.provenance, **describe_evaluation(config, checkpoint)}
        result = replace(result, provenance=described)
        annotations = Path(config.evaluation.data[evaluation.name].annotations)
        content = keep_judgement(folder, result, annotations)
        write_json(folder.unfinished / "results.json", content)
        metrics = dict(content["metrics"])
        found = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logger.info("evaluation/%s: %s", evaluation.name, found, extra=IN_FILE)
        stage = Stage(folder.unfinished)
        files = [folder.unfinished / "results.json"]
        answers = folder.unfinished / "predictions.jsonl"
        files += [answers] if answers.exists() else []
        asked = checkpoint.describe(config)
        stage.finish(evaluation.inputs, config=asked, files=files, metrics=metrics)
        folder.publish()
        run = RunDir(Path(config.output_dir) / config.name)
        results = folder.finished / "results.json"
        log_artifact(config.tracking, run, f"evaluation-{evaluation.name}", [results], metrics)
    barrier()


def _meter(
    config: Config, run: RunDir, evaluation: Evaluation, *, restart: bool
) -> AbstractContextManager[StageTimer | None]:
    if not is_main():
        open_log(run.log)
        return nullcontext()
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return StageTimer(
        run,
        f"evaluation/{evaluation.name}",
        fingerprint=fingerprint(evaluation.answer_inputs),
        device="server" if config.evaluation.backend == "openai" else name,
        num_devices=world_size(),
        restart=restart,
    )
