"""The evaluation stage: a checkpoint answers each benchmark's questions; the answers are scored.

In: the config, `training/final` (or the untuned model), the benchmarks' official files. Out, for
each benchmark: `predictions.jsonl` (LLaVA's answer format), `results.json`, the official submission
file where there is one; a table on the console.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from prism_tune.config import Config
from prism_tune.distributed import barrier, is_main
from prism_tune.evaluation.plan import find_checkpoint, plan_benchmark
from prism_tune.evaluation.process_group import process_group
from prism_tune.evaluation.session import Session
from prism_tune.log import console
from prism_tune.run_dir import RunDir, read_json
from prism_tune.stages import must_run

_NUM_SHOWN = 12


def evaluate(config: Config, run: RunDir, *, force: bool) -> None:
    """Answer and score every benchmark of the config that is not finished.

    Raises:
        ConfigError: a benchmark without data, or a template that cannot carry a question.
        UserError: unknown benchmark, missing training, annotations or images.
    """
    checkpoint, checkpoint_fingerprint = find_checkpoint(config, run)
    plans = [
        plan_benchmark(config, run, name, checkpoint_fingerprint)
        for name in config.evaluation.benchmarks
    ]
    due = [plan for plan in plans if must_run(plan.title, plan.stage, plan.inputs, force=force)]
    if due:
        session = Session(config, run, checkpoint)
        with process_group():
            barrier()  # nobody reopens a stage that another process still has to look at
            for plan in due:
                session.run(plan, force=force)
    if is_main() and plans:
        console.print(_tabulate([read_json(plan.folder / "results.json") for plan in plans]))


def _tabulate(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Evaluation")
    table.add_column("benchmark")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for result in results:
        shown = list(result["metrics"].items())[:_NUM_SHOWN]
        for row, (name, value) in enumerate(shown):
            title = f"{result['benchmark']} ({result['num_examples']})" if row == 0 else ""
            table.add_row(title, name, f"{value:.2f}")
        num_hidden = len(result["metrics"]) - len(shown)
        if num_hidden:
            table.add_row("", f"... {num_hidden} more in results.json", "")
        table.add_section()
    return table
