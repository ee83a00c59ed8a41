"""Language benchmarks through lm-eval, on the tuned model in memory, as text only.

In: a plan and a model. Out: `tasks/<task>.json` for each task as it finishes (a killed run resumes
with the next), then `results.json`. Prompts are lm-eval's, without chat template.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from prism_tune.config.sections import Config
from prism_tune.evaluation.language.tasks import find_split_files, list_tasks, write_task_files
from prism_tune.evaluation.language_benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.metrics import percent
from prism_tune.evaluation.plan import find_data
from prism_tune.processes import barrier, is_main, rank, world_size
from prism_tune.run.fingerprints import fingerprint, fingerprint_file
from prism_tune.run.folder import RunDir, read_json, write_json
from prism_tune.run.stage import Stage
from prism_tune.schema import BenchmarkResult

_FEWSHOT_SEED = 1234
"""lm-eval's own, so that examples drawn at random are those of its command line."""


@dataclass(frozen=True)
class LanguagePlan:
    """One language benchmark: where its data come from and what its result depends on."""

    name: str
    source: str
    limit: int | None
    folder: Path
    inputs: dict[str, Any]

    @property
    def stage(self) -> Stage:
        """Whether the benchmark finished."""
        return Stage(self.folder)

    @property
    def title(self) -> str:
        """The stage's name in the log and in timings.json."""
        return f"evaluation/{self.name}"

    def task_path(self, task: str) -> Path:
        """What a task came to."""
        return self.folder / "tasks" / f"{task}.json"


def plan_language(
    config: Config, run: RunDir, name: str, checkpoint_fingerprint: str
) -> LanguagePlan:
    """Find a language benchmark's data.

    Raises:
        ConfigError: no `evaluation.data` for it.
        UserError: a local folder without the files of a split.
    """
    data = find_data(config, name)
    checksum: Any = data.annotations
    if Path(data.annotations).is_dir():
        files = find_split_files(name, Path(data.annotations))
        checksum = {s: [fingerprint_file(Path(p)) for p in paths] for s, paths in files.items()}
    return LanguagePlan(
        name=name,
        source=data.annotations,
        limit=data.limit,
        folder=run.benchmark(name),
        inputs={
            "checkpoint": checkpoint_fingerprint,
            "data": fingerprint(checksum),
            "limit": data.limit,
            "num_fewshot": LANGUAGE_BENCHMARKS[name].num_fewshot,
            "dtype": config.evaluation.dtype,
            "batch_size": config.evaluation.batch_size,
            "lm_eval": version("lm_eval"),
        },
    )


def answer_language(
    plan: LanguagePlan, load_model: Callable[[], tuple[Any, Any]], *, force: bool
) -> BenchmarkResult | None:
    """Run the tasks that have no result yet, each process its share.

    Args:
        plan: the benchmark.
        load_model: gives model and tokenizer; called only when something is left to do.
        force: run every task again.

    Returns:
        The result on the main process, else None.
    """
    tasks = list_tasks(plan.name)
    asked = fingerprint(plan.inputs)
    share = [
        task for task in tasks[rank() :: world_size()] if force or not _is_done(plan, task, asked)
    ]
    if share:
        model, tokenizer = load_model()
        with tempfile.TemporaryDirectory(prefix="prism_tune-lm_eval-") as folder:
            write_task_files(plan.name, plan.source, Path(folder))
            manager = TaskManager(include_path=folder, include_defaults=False)
            size = plan.inputs["batch_size"]
            lm = _WindowedLM(pretrained=model, tokenizer=tokenizer, batch_size=size)
            for task in share:
                record = {"fingerprint": asked, **_run_task(plan, task, lm, manager)}
                write_json(plan.task_path(task), record)
    barrier()
    return _sum_up(plan, {task: read_json(plan.task_path(task)) for task in tasks if is_main()})


class _WindowedLM(HFLM):
    """lm-eval's model, which counts the contexts that it cuts at their beginning."""

    num_cut = 0

    def _loglikelihood_tokens(self, requests: Any, *args: Any, **options: Any) -> Any:
        lengths = [len(context) + len(ending) for _, context, ending in requests]
        self.num_cut += sum(length > self.max_length + 1 for length in lengths)
        return super()._loglikelihood_tokens(requests, *args, **options)

    def generate_until(self, requests: Any, *args: Any, **options: Any) -> Any:
        for request in requests:
            context, settings = request.args
            room = self.max_length - int(settings.get("max_gen_toks", self.max_gen_toks))
            self.num_cut += len(self.tok_encode(context)) > room
        return super().generate_until(requests, *args, **options)


def _is_done(plan: LanguagePlan, task: str, asked: str) -> bool:
    path = plan.task_path(task)
    return path.exists() and read_json(path)["fingerprint"] == asked


def _run_task(plan: LanguagePlan, task: str, lm: _WindowedLM, manager: Any) -> dict[str, Any]:
    """Each question's credit under every metric, and how many contexts did not fit."""
    lm.num_cut = 0
    loaded = manager.load([task])
    loaded["tasks"][task].set_fewshot_seed(seed=_FEWSHOT_SEED)
    # Not `simple_evaluate`: under torchrun it answers on local rank 0 only, and it looks through
    # the installed packages for each of 57 subjects.
    outcome: Any = evaluate(lm, loaded, limit=plan.limit, bootstrap_iters=0)
    credits = {
        name: {
            str(row["doc_id"]): float(row[metric])
            for row in outcome["samples"][task]
            if row["filter"] == chosen
        }
        for name, (metric, chosen) in LANGUAGE_BENCHMARKS[plan.name].metrics.items()
    }
    return {"credits": credits, "num_cut": int(lm.num_cut)}


def _sum_up(plan: LanguagePlan, records: Mapping[str, Mapping[str, Any]]) -> BenchmarkResult | None:
    """Micro averages over all questions, in percent; with several tasks, one figure each beside."""
    if not is_main():
        return None
    names = list(LANGUAGE_BENCHMARKS[plan.name].metrics)
    metrics = {
        name: percent([c for r in records.values() for c in r["credits"][name].values()])
        for name in names
    }
    if len(records) > 1:
        for task, record in records.items():
            subject = task.removeprefix(f"{plan.name}_")
            metrics[f"{names[0]}_{subject}"] = percent(list(record["credits"][names[0]].values()))
    per_question = {
        f"{task}/{doc}": credit
        for task, record in records.items()
        for doc, credit in record["credits"][names[0]].items()
    }
    num_cut = sum(record["num_cut"] for record in records.values())
    cut = f"{num_cut} context(s) were longer than the model's window and lost their beginning"
    return BenchmarkResult(
        benchmark=plan.name,
        metrics=metrics,
        num_examples=len(per_question),
        num_missing=0,
        profile="lm_eval",
        provenance={"scale": 100, "groups": {names[0]: ""}},
        per_question=per_question,
        notes=(cut,) if num_cut else (),
    )
