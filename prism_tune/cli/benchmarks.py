"""The verbs around benchmarks and their answers: data, score, judge, answers. Parsing only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from prism_tune.cli.options import spread
from prism_tune.config.sections import Metric, Profile, Readout


def data(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="For example mmmu; or `check`.")
    ],
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", help="For `check`: whose data to look for."),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the files.")] = None,
) -> None:
    """Fetch a benchmark's data, or check that a config's data are there."""
    from prism_tune.run.log import setup_logging

    setup_logging()
    if benchmark == "check":
        if config is None:
            raise typer.BadParameter("check needs a config: prism-tune data check CONFIG")
        from prism_tune.cli.options import open_run

        opened, _ = open_run(config, None)  # says which, before what takes seconds to import
        from prism_tune.evaluation.check_data import check_data

        if not check_data(opened):
            raise typer.Exit(1)
        return
    if to is None:
        raise typer.BadParameter(f"--to: say where to: prism-tune data {benchmark} --to FOLDER")
    from prism_tune.evaluation.fetch import fetch_benchmark

    fetch_benchmark(benchmark, to)


def score(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="For example pope.")],
    predictions: Annotated[
        list[Path],
        typer.Option(help="Answers: LLaVA's jsonl or another layout; again for more files."),
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Official annotations: a file or folder. Reviews and results need none."),
    ] = None,
    profile: Annotated[Profile, typer.Option(help="Whose prompts and parsers.")] = "llava15",
    metric: Annotated[
        Metric | None, typer.Option(help="Of a benchmark of your own: how it is scored.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json and the official submission file."),
    ] = None,
) -> None:
    """Score an answer file by the official protocol, without a model."""
    from prism_tune.evaluation.score import format_json, print_result
    from prism_tune.evaluation.score import score as run_score

    result = run_score(
        benchmark, predictions, annotations, profile=profile, output=output, metric=metric
    )
    if as_json:
        typer.echo(format_json(result))
    else:
        print_result(result)


@dataclass(frozen=True)
class JudgeOptions:
    """What is judged, who judges it, and how."""

    predictions: Annotated[Path, typer.Option(help="Answers: LLaVA's jsonl or {id: answer}.")]
    annotations: Annotated[Path, typer.Option(help="mm-vet.json; LLaVA-Bench's folder.")]
    judge_prompt: Annotated[
        Path, typer.Option(help="MM-Vet's mm-vet_evaluator.py, or its text; LLaVA's rule.json.")
    ]
    model: Annotated[str, typer.Option(help="The judge: a name at --base-url, or a HF model.")]
    base_url: Annotated[
        str, typer.Option(help="OpenAI-compatible, https://host/v1; key: OPENAI_API_KEY.")
    ] = ""
    runs: Annotated[int, typer.Option(min=1, help="Grades per answer; the paper has 5.")] = 1
    readout: Annotated[Readout, typer.Option(help="How a HF model's grade is read.")] = "expected"
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a million prompt tokens, for the estimate.")
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(help="The grade file (of reviews their stem); else beside the answers."),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimate only.")] = False


@spread
def judge(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="mmvet or llava_bench.")],
    asked: JudgeOptions,
) -> None:
    """Grade answers with a judge; writes grade or review files in the official format."""
    from prism_tune.evaluation.judge.command import JudgeSettings, run_judge
    from prism_tune.run.log import setup_logging

    setup_logging()
    settings = JudgeSettings(
        asked.model,
        asked.base_url,
        asked.readout,
        asked.judge_prompt,
        asked.runs,
        asked.price,
        asked.dry_run,
    )
    run_judge(benchmark, asked.predictions, asked.annotations, settings, asked.output)


def answers(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [RUN]", help="A run folder; or two: before and now."),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", help="The table: a .parquet or .csv file.")
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Only this one; again for more. Default: all.")
    ] = None,
) -> None:
    """List every question with its answer, right or wrong; of two runs what has changed."""
    from prism_tune.evaluation.answers_table import (
        build_answers,
        check_suffix,
        print_answers,
        write_answers,
    )

    if to is not None:
        check_suffix(to)
    table = build_answers(runs, benchmark or [])
    if to is not None:
        write_answers(table, to)
    print_answers(table)
    if to is not None:
        typer.echo(f"answers: {to} ({len(table.rows)} rows)")
