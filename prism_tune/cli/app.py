"""The command line: parsing, and one call per verb.

Everything heavy is imported inside the verb, so that `--help` answers at once.
Exit codes: 0 done, 1 failed, 2 usage or config.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from prism_tune.cli.compare import compare
from prism_tune.cli.models import assemble, export
from prism_tune.cli.report import report
from prism_tune.cli.tables import plan, subset_app, tables

if TYPE_CHECKING:
    from prism_tune.config.sections import Config
    from prism_tune.run.folder import RunDir

app = typer.Typer(
    name="prism-tune",
    help="Select visual-instruction data without training, tune on it, evaluate, tabulate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="Experiment YAML.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this at run time on Python 3.10
    typer.Argument(metavar="[KEY=VALUE]...", help="For example selection.budget=0.2"),
]
Force = Annotated[bool, typer.Option("--force", help="Run even when finished.")]


@app.command()
def prepare(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Fetch, verify and assemble what the config's `data.prepare` names."""
    from prism_tune.config.load import load_config
    from prism_tune.quickstart.prepare import prepare as run_prepare
    from prism_tune.run.log import setup_logging

    setup_logging()
    run_prepare(load_config(config, overrides or []), force=force)


@app.command()
def audit(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Check every record and image; exit code 1 when some have to be mended or skipped."""
    from prism_tune.audit.audit import audit as run_audit

    if not run_audit(*_open(config, overrides), force=force):
        raise typer.Exit(1)


@app.command()
def select(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Score the pool and write the subset."""
    from prism_tune.selection.select import select as run_select

    run_select(*_open(config, overrides), force=force)


@app.command()
def train(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Tune the model on the subset (or the pool)."""
    from prism_tune.training.train import train as run_train

    run_train(*_open(config, overrides), force=force)


@app.command()
def evaluate(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Answer the benchmarks' questions and score the answers."""
    from prism_tune.evaluation.evaluate import evaluate as run_evaluate

    run_evaluate(*_open(config, overrides), force=force)


@app.command()
def score(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="For example pope.")],
    predictions: Annotated[Path, typer.Option(help="Answers: LLaVA's jsonl or another layout.")],
    annotations: Annotated[Path, typer.Option(help="Official annotations: a file or folder.")],
    profile: Annotated[str, typer.Option(help="llava15 | lmms_eval")] = "llava15",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads this at run time on Python 3.10
        typer.Option(help="Folder for results.json and the official submission file."),
    ] = None,
) -> None:
    """Score an answer file by the official protocol, without a model."""
    from prism_tune.evaluation.score import check_profile, format_json, print_result
    from prism_tune.evaluation.score import score as run_score

    result = run_score(
        benchmark, predictions, annotations, profile=check_profile(profile), output=output
    )
    if as_json:
        typer.echo(format_json(result))
    else:
        print_result(result)


@app.command()
def judge(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="mmvet.")],
    predictions: Annotated[Path, typer.Option(help="Answers: LLaVA's jsonl or {id: answer}.")],
    annotations: Annotated[Path, typer.Option(help="mm-vet.json.")],
    judge_prompt: Annotated[Path, typer.Option(help="MM-Vet's mm-vet_evaluator.py, or its text.")],
    model: Annotated[str, typer.Option(help="The judge: a name at --base-url, or a HF model.")],
    base_url: Annotated[
        str, typer.Option(help="OpenAI-compatible, https://host/v1; key: OPENAI_API_KEY.")
    ] = "",
    runs: Annotated[int, typer.Option(min=1, help="Grades per answer; the paper has 5.")] = 1,
    readout: Annotated[str, typer.Option(help="HF model: expected | argmax.")] = "expected",
    price: Annotated[
        Optional[float],  # noqa: UP045 - typer reads this at run time on Python 3.10
        typer.Option(min=0, help="Of a million prompt tokens, for the estimate."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The grade file; else beside the answers."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimate only.")] = False,
) -> None:
    """Grade answers with a judge; writes a grade file in the official format."""
    from prism_tune.evaluation.judge.command import JudgeSettings, run_judge
    from prism_tune.run.log import setup_logging

    setup_logging()
    settings = JudgeSettings(model, base_url, readout, judge_prompt, runs, price, dry_run)
    run_judge(benchmark, predictions, annotations, settings, output)


@app.command()
def data(
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="For example mmmu; or `check`.")
    ],
    config: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads this at run time on Python 3.10
        typer.Argument(metavar="[CONFIG]", help="For `check`: whose data to look for."),
    ] = None,
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for the files."),
    ] = None,
) -> None:
    """Fetch a benchmark's data, or check that a config's data are there."""
    from prism_tune.run.log import setup_logging

    setup_logging()
    if benchmark == "check":
        if config is None:
            raise typer.BadParameter("check needs a config: prism-tune data check CONFIG")
        from prism_tune.config.load import load_config
        from prism_tune.evaluation.check_data import check_data

        if not check_data(load_config(config)):
            raise typer.Exit(1)
        return
    if to is None:
        raise typer.BadParameter(f"--to: say where to: prism-tune data {benchmark} --to FOLDER")
    from prism_tune.evaluation.fetch import fetch_benchmark

    fetch_benchmark(benchmark, to)


@app.command()
def preview(
    config: ConfigPath,
    overrides: Overrides = None,
    num_records: Annotated[int, typer.Option("--num-records", "-n", min=1)] = 3,
) -> None:
    """Show records as the model will see them: tokens, label mask, images."""
    from prism_tune.training.preview import preview as run_preview

    loaded, _ = _open(config, overrides)
    run_preview(loaded, Path(mkdtemp(prefix="prism_tune_preview_")), num_records=num_records)


@app.command()
def show(
    config: ConfigPath,
    overrides: Overrides = None,
    key: Annotated[str, typer.Option(help="Print only this value, for example `name`.")] = "",
) -> None:
    """Print the resolved config."""
    from prism_tune.config.load import load_config, render_config

    typer.echo(render_config(load_config(config, overrides or []), key))


@app.command()
def doctor() -> None:
    """Check versions, devices, disk and launchers; say what is missing and how to mend it."""
    from prism_tune.cli.doctor import diagnose

    if not diagnose():
        raise typer.Exit(1)


app.command()(compare)
app.command()(export)
app.command()(assemble)
app.command()(report)
app.command()(plan)
app.command()(tables)
app.add_typer(subset_app, name="subset")


def main() -> None:
    """Run the command line; a `UserError` becomes one message and an exit code."""
    from prism_tune.errors import ConfigError, UserError

    try:
        app()
    except ConfigError as error:
        _complain(error)
        sys.exit(2)
    except UserError as error:
        _complain(error)
        sys.exit(1)


def _open(path: Path, overrides: list[str] | None) -> tuple[Config, RunDir]:
    """The config, and its run folder: nothing is written there before a stage begins."""
    from prism_tune.config.load import load_config
    from prism_tune.run.folder import RunDir
    from prism_tune.run.log import setup_logging

    setup_logging()
    config = load_config(path, overrides or [])
    return config, RunDir(Path(config.output_dir) / config.name)


def _complain(error: Exception) -> None:
    typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
