"""The verbs around tables: tables, subset export | verify. Parsing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_tune.config.sections import ExportLayout
from prism_tune.results.render import OutputFormat

subset_app = typer.Typer(
    help="Write a subset for other trainers, share it, verify it.", no_args_is_help=True
)


def tables(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="main, selectors, cost, ablation, models, visionflan or language.",
        ),
    ],
    more_runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="More run folders: --runs runs/a runs/b"),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", help="Run folders; without any, the paper's rows alone."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Run that Rel. = 100 refers to.")] = None,
    paper: Annotated[
        bool | None,
        typer.Option(
            "--paper/--no-paper", help="Printed rows: all, none. Default: comparable ones."
        ),
    ] = None,
    output_format: Annotated[OutputFormat, typer.Option("--format")] = "md",
    explain: Annotated[
        str | None,
        typer.Option(metavar="ROW:COLUMN", help="Print what this cell comes from instead."),
    ] = None,
) -> None:
    """Print runs side by side, with Rel. and the selection cost."""
    from prism_tune.results.build import build_table, explain_table_cell

    folders = [*(runs or []), *(more_runs or [])]
    if explain:
        text = explain_table_cell(
            table,
            folders,
            explain,
            baseline=baseline,
            printed=paper,
            output_format=output_format,
        )
    else:
        text = build_table(
            table, folders, baseline=baseline, printed=paper, output_format=output_format
        )
    typer.echo(text)


@subset_app.command("export")
def export_subset(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that has selected.")],
    to: Annotated[Path, typer.Option("--to", help="The file; of trl a new folder.")],
    layout: Annotated[
        ExportLayout | None,
        typer.Option("--as", help="The records, as this trainer reads them. Default: the hashes."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="One of the run's selection.budgets, for example 0.25; with --as."),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Share the hashes there, with a dataset card."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="The hub repository, if new.")] = False,
) -> None:
    """Write a run's subset for another trainer; or as hashes and ids, to share and `verify`."""
    from prism_tune.errors import ConfigError
    from prism_tune.run.folder import RunDir
    from prism_tune.run.log import setup_logging
    from prism_tune.selection.export.layouts import export_run
    from prism_tune.selection.export.push_subset import push_subset
    from prism_tune.selection.shared_subset import export_subset as run_export

    setup_logging()
    if layout is None and budget is not None:
        raise ConfigError("--budget names records to write: say with --as in which layout")
    if layout is not None and push_to_hub is not None:
        raise ConfigError("--push-to-hub shares the hashes and ids, not records: leave out --as")
    if layout is not None:
        export_run(RunDir(run), layout, to, budget)
        return
    run_export(RunDir(run), to)
    if push_to_hub is not None:
        push_subset(RunDir(run), to, push_to_hub, private=private)


@subset_app.command("verify")
def verify_subset(
    shared: Annotated[Path, typer.Argument(metavar="FILE", help="What `subset export` wrote.")],
    records: Annotated[str, typer.Option(help="Your copy of the pool, as `data.records`.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write the subset here, for example subset.json."),
    ] = None,
    image_dir: Annotated[
        Path | None,
        typer.Option(help="Where its images lie, if records name them by absolute paths."),
    ] = None,
) -> None:
    """Make a shared subset from your copy of its pool; exit code 1 unless it is as published."""
    from prism_tune.run.log import setup_logging
    from prism_tune.selection.shared_subset import verify_subset as run_verify

    setup_logging()
    verification = run_verify(shared, records, to, image_dir)
    for line in verification.describe():
        typer.echo(line)
    if not verification.is_identical:
        raise typer.Exit(1)
