"""Language benchmarks through lm-eval, on the tuned model in memory, as text only.

In: the config and a benchmark's name, then a decoder's model. Out: `tasks/<task>.json` for each
task as it finishes (a killed run resumes with the next), and a `BenchmarkResult`. Prompts are
lm-eval's; with `evaluation.chat_template` each is one question under `model.template`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from prism_tune.config.depends import fields_of
from prism_tune.config.sections import BenchmarkData, Config
from prism_tune.errors import ConfigError
from prism_tune.evaluation.answer_store import ResultFolder
from prism_tune.evaluation.generate import Decoder, computed_here
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.language.model import WindowedLM, find_chat
from prism_tune.evaluation.language.tasks import find_files, list_tasks, write_task_files
from prism_tune.evaluation.metrics import percent
from prism_tune.evaluation.serving.server import Server
from prism_tune.processes import barrier, is_main, rank, world_size
from prism_tune.run.fingerprints import fingerprint, fingerprint_file
from prism_tune.run.folder import read_object, write_json
from prism_tune.run.timings import StageTimer
from prism_tune.schema import BenchmarkResult

_FEWSHOT_SEED = 1234
"""lm-eval's own, so that examples drawn at random are those of its command line."""

_TEMPLATE = "chat_template"
_WITHOUT_EFFECT = {
    "seed",
    "model.template",
    "model.image_aspect_ratio",
    "model.image_backend",
    "data.policy",
    "evaluation.profile",
    "evaluation.controls",
}
"""lm-eval's prompts are its own, and hold no image."""


@dataclass(frozen=True)
class LanguageEvaluation:
    """One language benchmark of a config, checked and ready to run.

    Attributes:
        name: its key in `LANGUAGE_BENCHMARKS`.
        source: a folder in the hub's layout, or a hub id.
        inputs: everything the result depends on, by the name shown when it changed.
    """

    name: str
    source: str
    inputs: Mapping[str, Any]

    @property
    def answer_inputs(self) -> Mapping[str, Any]:
        """What every single answer depends on."""
        return computed_here(self.inputs)

    def run(
        self, decoder: Decoder | Server, folder: ResultFolder, timer: StageTimer | None
    ) -> BenchmarkResult | None:
        """Run the tasks that have no result yet, each process its share.

        Returns:
            The result on the main process, else None.
        """
        assert not isinstance(decoder, Server)  # `evaluate` refuses one
        tasks = list_tasks(self.name)
        if is_main():
            self._take_over(folder)
        barrier()
        share = [task for task in tasks[rank() :: world_size()] if not self._is_done(folder, task)]
        if share:
            self._run_tasks(share, decoder, folder)
        barrier()
        if not is_main():
            return None
        result = _sum_up(self.name, {task: read_object(_task_path(folder, task)) for task in tasks})
        if timer:
            timer.tick(questions=result.num_examples)
        named = {name.rpartition(".")[2]: value for name, value in self.inputs.items()}
        provenance = {**result.provenance, **named, "annotations": self.source}
        return replace(result, provenance=provenance)

    def _run_tasks(self, tasks: Sequence[str], decoder: Decoder, folder: ResultFolder) -> None:
        with tempfile.TemporaryDirectory(prefix="prism_tune-lm_eval-") as written:
            write_task_files(self.name, self.source, Path(written))
            manager = TaskManager(include_path=written, include_defaults=False)
            model: Any = decoder.model
            size = self.inputs["evaluation.batch_size"]
            tokenizer = decoder.processor.tokenizer
            template = self.inputs.get(_TEMPLATE)
            chat = find_chat(template, decoder.processor) if template else None
            lm = WindowedLM(pretrained=model, tokenizer=tokenizer, batch_size=size, chat=chat)
            for task in tasks:
                outcome = _run_task(self, task, lm, manager)
                record = {"fingerprint": fingerprint(self.answer_inputs), **outcome}
                write_json(_task_path(folder, task), record)

    def _take_over(self, folder: ResultFolder) -> None:
        """Task results of a finished evaluation with the same inputs."""
        for path in (p for source in folder.sources for p in source.glob("tasks/*.json")):
            record = read_object(path)
            if record.get("fingerprint") == fingerprint(self.answer_inputs):
                write_json(_task_path(folder, path.stem), record)

    def _is_done(self, folder: ResultFolder, task: str) -> bool:
        path, key = _task_path(folder, task), fingerprint(self.answer_inputs)
        return path.exists() and read_object(path).get("fingerprint") == key


def open_language(
    config: Config, name: str, data: BenchmarkData, checkpoint_fingerprint: str
) -> LanguageEvaluation:
    """Find a language benchmark's data.

    Raises:
        ConfigError: a chat template that is none.
        UserError: neither a folder with the files of its splits nor a hub id.
    """
    checksum: Any = data.annotations
    if (files := find_files(name, data.annotations)) is not None:
        checksum = {s: [fingerprint_file(Path(p)) for p in paths] for s, paths in files.items()}
    if config.evaluation.chat_template and config.model.template == "plain":
        raise ConfigError("evaluation.chat_template: model.template `plain` holds no conversation")
    fields = fields_of(config, "answers")
    return LanguageEvaluation(
        name=name,
        source=data.annotations,
        inputs={
            **{key: value for key, value in fields.items() if key not in _WITHOUT_EFFECT},
            "checkpoint": checkpoint_fingerprint,
            "data": fingerprint(checksum),
            "limit": data.limit,
            "num_fewshot": LANGUAGE_BENCHMARKS[name].num_fewshot,
            "lm_eval": version("lm_eval"),
            **({_TEMPLATE: config.model.template} if config.evaluation.chat_template else {}),
        },
    )


def _task_path(folder: ResultFolder, task: str) -> Path:
    return folder.unfinished / "tasks" / f"{task}.json"


def _run_task(
    evaluation: LanguageEvaluation, task: str, lm: WindowedLM, manager: Any
) -> dict[str, Any]:
    """Each question's credit under every metric, and how many contexts did not fit."""
    lm.restart()
    loaded = manager.load([task])
    loaded["tasks"][task].set_fewshot_seed(seed=_FEWSHOT_SEED)
    # Not `simple_evaluate`: under torchrun it answers on local rank 0 only, and it looks through
    # the installed packages for each of 57 subjects.
    outcome: Any = evaluate(
        lm,
        loaded,
        limit=evaluation.inputs["limit"],
        bootstrap_iters=0,
        apply_chat_template=lm.chat is not None,
    )
    credits = {
        name: {
            str(row["doc_id"]): float(row[metric])
            for row in outcome["samples"][task]
            if row["filter"] == chosen
        }
        for name, (metric, chosen) in LANGUAGE_BENCHMARKS[evaluation.name].metrics.items()
    }
    return {"credits": credits, "num_cut": int(lm.num_cut), "shortened": lm.shortened}


def _sum_up(benchmark: str, records: Mapping[str, Mapping[str, Any]]) -> BenchmarkResult:
    """Micro averages over all questions, in percent; with several tasks, one figure each beside."""
    names = list(LANGUAGE_BENCHMARKS[benchmark].metrics)
    metrics = {
        name: percent([c for r in records.values() for c in r["credits"][name].values()])
        for name in names
    }
    if len(records) > 1:
        for task, record in records.items():
            subject = task.removeprefix(f"{benchmark}_")
            metrics[f"{names[0]}_{subject}"] = percent(list(record["credits"][names[0]].values()))
    per_question = {
        f"{task}/{doc}": credit
        for task, record in records.items()
        for doc, credit in record["credits"][names[0]].items()
    }
    num_cut = sum(record["num_cut"] for record in records.values())
    cut = f"{num_cut} context(s) were longer than the model's window and lost their beginning"
    shortened = next((r["shortened"] for r in records.values() if r.get("shortened")), "")
    return BenchmarkResult(
        benchmark=benchmark,
        metrics=metrics,
        num_examples=len(per_question),
        num_missing=0,
        profile="lm_eval",
        provenance={"scale": 100, "groups": {names[0]: ""}},
        per_question=per_question,
        notes=(*([shortened] if shortened else []), *([cut] if num_cut else [])),
    )
