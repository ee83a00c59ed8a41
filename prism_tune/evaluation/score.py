"""Score an answer file, without a model.

In: a benchmark's name, anyone's answers in the published format, the official annotations.
Out: a `BenchmarkResult`; with an output folder also `results.json` and the official submission.
"""

from __future__ import annotations

import difflib
import gc
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from prism_tune import __version__
from prism_tune.config.plugins import describe_plugin, find_plugged, list_plugged
from prism_tune.config.sections import NAME_PATTERN, Metric, Profile
from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import Benchmark, open_questions
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.benchmarks.custom import make_benchmark
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.predictions import id_key
from prism_tune.run.fingerprints import fingerprint, fingerprint_file
from prism_tune.run.folder import write_json
from prism_tune.schema import BenchmarkResult, Prediction, Question

if TYPE_CHECKING:
    from rich.table import Table

KNOWN: dict[str, object] = {**BENCHMARKS, **LANGUAGE_BENCHMARKS}
_NUM_SHOWN = 12
_TEXT_SUFFIXES = (".txt", ".json", ".jsonl", ".tsv", ".parquet")


def score(
    benchmark: str,
    predictions: Path | Sequence[Path],
    annotations: Path | None,
    *,
    profile: Profile = "llava15",
    output: Path | None = None,
    metric: Metric | None = None,
    only: Collection[str] | None = None,
) -> BenchmarkResult:
    """Score answers by the official protocol.

    Args:
        benchmark: a key of `BENCHMARKS`.
        predictions: LLaVA's answer jsonl, or another layout the benchmark's file names; several
            files are shards of one, or runs of one judge.
        annotations: the official annotations, in a layout the benchmark's file names; None where
            the predictions bring their references along (MME's result folder, reviews, grades).
        profile: whose prompts and parsers.
        output: folder for `results.json` and the submission file.
        metric: of a benchmark of one's own.
        only: ids of the questions that were asked, where it was not all; None for all.

    Raises:
        UserError: unknown benchmark (the nearest is named), or a file that is not as expected.
    """
    chosen = find_benchmark(benchmark, metric)
    files = [predictions] if isinstance(predictions, Path) else list(predictions)
    with _without_collector():
        answers = [answer for file in files for answer in chosen.read_predictions(file)]
        questions = _find_questions(chosen, annotations, answers, profile)
        if only is not None:
            questions = [question for question in questions if id_key(question) in only]
        result = chosen.score(questions, answers, profile)
    listed = [describe_file(file) for file in files]
    described = {
        **({"annotations": describe_file(annotations)} if annotations else {}),
        "predictions": listed[0] if len(listed) == 1 else listed,
        **describe_plugin("BENCHMARKS", benchmark),
        **_describe_answers(answers),
    }
    result = replace(result, provenance={**result.provenance, **described})
    if output is not None:
        write_json(output / "results.json", result_to_json(result))
        if chosen.write_submission is not None:
            chosen.write_submission(questions, answers, output)
    return result


@contextmanager
def _without_collector() -> Iterator[None]:
    """No search for cycles: records have none, and over millions it outlasts the reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _find_questions(
    benchmark: Benchmark,
    annotations: Path | None,
    answers: Sequence[Prediction],
    profile: Profile,
) -> list[Question]:
    if annotations is not None:
        return open_questions(benchmark, annotations, profile)
    own = benchmark.own_questions(answers) if benchmark.own_questions else []
    if not own:
        raise UserError(
            f"--annotations: missing; these answers to {benchmark.name} do not bring their "
            "references along. Give the benchmark's official files or the hub's parquet"
        )
    return own


def find_benchmark(
    name: str,
    metric: Metric | None = None,
    *,
    instruction: str | None = None,
    max_new_tokens: int | None = None,
) -> Benchmark:
    """The benchmark of this name; with a metric one of the user's own.

    Raises:
        UserError: unknown (the nearest name and all names are given), or a language benchmark,
            which has no answer file; a benchmark of one's own by the name of a known one.
    """
    if metric is not None:
        if name in KNOWN or find_plugged("BENCHMARKS", name, Benchmark, {}) is not None:
            raise UserError(f"{name}: its protocol has no `metric`; give your own another name")
        if not re.match(NAME_PATTERN, name):
            raise UserError(f"{name!r}: expected a name of letters, digits and `._-`")
        return make_benchmark(name, metric, instruction=instruction, max_new_tokens=max_new_tokens)
    plugged = find_plugged("BENCHMARKS", name, Benchmark, KNOWN)
    if plugged is not None:
        return plugged
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if name in LANGUAGE_BENCHMARKS:
        raise UserError(
            f"{name} is a language benchmark: lm-eval scores it while it runs, with "
            f"`prism-tune evaluate CONFIG benchmarks=[{name}]`; there is no answer file to score"
        )
    known = [*sorted(BENCHMARKS), *sorted(LANGUAGE_BENCHMARKS), *list_plugged("BENCHMARKS")]
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UserError(
        f"unknown benchmark {name!r}; {hint}There are {', '.join(known)}; one of your own needs a "
        f"metric (evaluation.data.{name}.metric, --metric), or a plugin (`plugins`, --plugin)"
    )


def result_to_json(result: BenchmarkResult) -> dict[str, Any]:
    """What `results.json` and `--json` hold."""
    return {field.name: getattr(result, field.name) for field in fields(result)}


def format_json(result: BenchmarkResult) -> str:
    """The result as one line of JSON."""
    return orjson.dumps(result_to_json(result)).decode()


def print_result(result: BenchmarkResult) -> None:
    """The metrics as a table on the console, notes below it."""
    from rich.console import Console
    from rich.table import Table

    title = f"{result.benchmark} ({result.profile}: {result.provenance['protocol']})"
    table = Table("metric", title=title, caption=f"{result.num_examples} questions")
    table.add_column("value", justify="right")
    for name, value in result.metrics.items():
        table.add_row(name, format_metric(result.benchmark, value))
    console = Console(markup=False, emoji=False)
    console.print(table)
    for note in result.notes:
        console.print(f"- {note}", highlight=False)


def tabulate_results(results: Sequence[Mapping[str, Any]]) -> Table:
    """Several `results.json` as a table: one row per metric, a column for each control."""
    from rich.table import Table

    controls = list(dict.fromkeys(c for result in results for c in _list_controls(result)))
    table = Table(title="Evaluation")
    for heading in ("benchmark", "metric", "value", *controls):
        table.add_column(heading, justify="left" if heading in ("benchmark", "metric") else "right")
    for result in results:
        for row in _list_rows(result, controls):
            table.add_row(*row)
        table.add_section()
    return table


def format_metric(benchmark: str, value: float) -> str:
    """A metric as its official script shows it: MMMU's prints fractions, the others percentages."""
    return f"{value:.3f}" if benchmark == "mmmu" else f"{value:.2f}"


def describe_file(path: Path) -> dict[str, str]:
    """Path and SHA-256 of a file; of a folder, of its annotation files (images left out)."""
    if path.is_file():
        return {"path": str(path), "sha256": fingerprint_file(path)}
    files = sorted(file for file in path.rglob("*") if file.suffix in _TEXT_SUFFIXES)
    content = [[str(file.relative_to(path)), fingerprint_file(file)] for file in files]
    return {"path": str(path), "sha256": fingerprint(content)}


def _list_rows(result: Mapping[str, Any], controls: Sequence[str]) -> list[list[str]]:
    metrics = result["metrics"]
    beside = {f"{name}_{control}" for name in metrics for control in _list_controls(result)}
    names = [name for name in metrics if name not in beside]
    rows = []
    for name in names[:_NUM_SHOWN]:
        values = [metrics.get(key) for key in (name, *(f"{name}_{c}" for c in controls))]
        benchmark = result["benchmark"]
        shown = ["" if value is None else format_metric(benchmark, value) for value in values]
        rows.append(["", name, *shown])
    if not rows:
        rows.append(["", "no score: see the notes in results.json"])
    num_skipped = sum(result["provenance"].get("num_skipped", {}).values())
    skipped = f", {num_skipped} skipped" if num_skipped else ""
    rows[0][0] = f"{result['benchmark']} ({result['num_examples']}{skipped})"
    if len(names) > _NUM_SHOWN:
        rows.append(["", f"... {len(names) - _NUM_SHOWN} more in results.json"])
    return rows


def _list_controls(result: Mapping[str, Any]) -> list[str]:
    controls: list[str] = result["provenance"].get("controls", [])
    return controls


def _describe_answers(answers: Sequence[Prediction]) -> dict[str, Any]:
    model_ids = sorted({answer.model_id for answer in answers if answer.model_id})
    return {"model_ids": model_ids, "evaluator": f"prism_tune {__version__}"}
