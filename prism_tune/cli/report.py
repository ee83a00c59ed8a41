"""The verb that writes the page about a run. Parsing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [OTHER]...", help="A run folder; more are for --compare."),
    ],
    compare: Annotated[
        list[Path] | None, typer.Option("--compare", help="Run folders to put beside it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the page; default: RUN/report.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Write it, then show it.")] = False,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    wandb: Annotated[
        str | None, typer.Option("--wandb", metavar="PROJECT", help="Log it there as an artifact.")
    ] = None,
) -> None:
    """Write a page about a run: what was kept, what was dropped, and why."""
    typer.echo(f"building the report of {folders[0]} ...", err=True)
    from prism_tune.evaluation import finished_answers
    from prism_tune.report.build import build_report
    from prism_tune.run.folder import RunDir
    from prism_tune.run.log import setup_logging

    setup_logging()
    runs = [RunDir(folder) for folder in (folders[0], *(compare or []), *folders[1:])]
    page = build_report(runs, output, finished_answers)
    typer.echo(f"report: {page}")
    if wandb:
        from prism_tune.config.sections import TrackingConfig
        from prism_tune.run.tracking import log_artifact

        tracking = TrackingConfig(wandb=True, project=wandb)
        log_artifact(tracking, runs[0], "report", [page.parent], {"page": page.name})
    if serve:
        from prism_tune.report.question_pictures import QuestionPictures
        from prism_tune.report.serving.serve import serve_report

        pictures = QuestionPictures(runs[0], finished_answers)
        serve_report(runs[0], page.parent, pictures, host=host, port=port)
