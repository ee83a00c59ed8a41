"""The evaluation stage: a checkpoint answers each benchmark's questions; the answers are scored.

In: the config, `training/final` (or the untuned model), the benchmarks' official files. Out, for
each benchmark: `predictions.jsonl` (LLaVA's answer format), `results.json`, the official submission
file where there is one; a table on the console.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from prism_tune.config.sections import Config
from prism_tune.data.policy import check_policy
from prism_tune.evaluation.language.tasks import list_tasks
from prism_tune.evaluation.language_benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.plan import Plan, find_checkpoint, plan_benchmark
from prism_tune.evaluation.score import format_metric
from prism_tune.evaluation.screening import screen_questions
from prism_tune.evaluation.session import Session
from prism_tune.processes import barrier, from_main, is_main, process_group
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.log import console
from prism_tune.run.stage import must_run

if TYPE_CHECKING:
    from prism_tune.evaluation.language.run import LanguagePlan

_NUM_SHOWN = 12


def evaluate(config: Config, run: RunDir, *, force: bool) -> None:
    """Answer and score every benchmark of the config that is not finished.

    The images of all of them are looked at before the first question is asked, and
    `data.policy` says what becomes of a question whose image cannot be used.

    Raises:
        ConfigError: a benchmark without data, or a template that cannot carry a question.
        UserError: unknown benchmark, missing training or annotations, unusable images whose
            policy is "fail".
    """
    check_policy(config.data.policy)
    checkpoint, checkpoint_fingerprint = find_checkpoint(config, run)
    plans = [
        _plan(config, run, name, checkpoint_fingerprint) for name in config.evaluation.benchmarks
    ]
    due = [plan for plan in plans if must_run(plan.title, plan.stage, plan.inputs, force=force)]
    if due:
        session = Session(config, run, checkpoint)
        with process_group():
            barrier()  # nobody reopens a stage that another process still has to look at
            for plan in [_screen(config, plan) for plan in due]:
                session.run(plan, force=force)
    if is_main() and plans:
        console.print(_tabulate([read_json(plan.folder / "results.json") for plan in plans]))


def _plan(config: Config, run: RunDir, name: str, checkpoint: str) -> Plan | LanguagePlan:
    if name not in LANGUAGE_BENCHMARKS:
        return plan_benchmark(config, run, name, checkpoint)
    list_tasks(name)  # says what to install where lm-eval is missing
    from prism_tune.evaluation.language.run import plan_language

    return plan_language(config, run, name, checkpoint)


def _screen(config: Config, plan: Plan | LanguagePlan) -> Plan | LanguagePlan:
    if not isinstance(plan, Plan):
        return plan
    return replace(plan, skipped=from_main(lambda: screen_questions(plan, config.data)))


def _tabulate(results: Sequence[dict[str, Any]]) -> Table:
    """One row per metric; a column for each control."""
    controls = list(dict.fromkeys(c for r in results for c in _controls(r)))
    table = Table(title="Evaluation")
    for heading in ("benchmark", "metric", "value", *controls):
        table.add_column(heading, justify="left" if heading in ("benchmark", "metric") else "right")
    for result in results:
        for row in _list_rows(result, controls):
            table.add_row(*row)
        table.add_section()
    return table


def _list_rows(result: dict[str, Any], controls: Sequence[str]) -> list[list[str]]:
    metrics = result["metrics"]
    asked = _controls(result)
    beside = {f"{name}_{control}" for name in metrics for control in asked}
    names = [name for name in metrics if name not in beside]
    rows = []
    for name in names[:_NUM_SHOWN]:
        values = [metrics.get(key) for key in (name, *(f"{name}_{c}" for c in controls))]
        benchmark = result["benchmark"]
        shown = ["" if value is None else format_metric(benchmark, value) for value in values]
        rows.append(["", name, *shown])
    num_skipped = sum(result["provenance"].get("num_skipped", {}).values())
    skipped = f", {num_skipped} skipped" if num_skipped else ""
    rows[0][0] = f"{result['benchmark']} ({result['num_examples']}{skipped})"
    if len(names) > _NUM_SHOWN:
        rows.append(["", f"... {len(names) - _NUM_SHOWN} more in results.json"])
    return rows


def _controls(result: dict[str, Any]) -> list[str]:
    controls: list[str] = result["provenance"].get("controls", [])
    return controls
