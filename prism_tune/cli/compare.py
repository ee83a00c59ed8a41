"""The verbs about grids: compare and plan. Parsing only, as in `app.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_tune.cli.grid import check_all, find_grid, run_grid
from prism_tune.cli.options import Overrides, open_run
from prism_tune.cli.run import TO_LEAVE_SECONDS, Launch, NumProcesses
from prism_tune.interrupts import patience

Grid = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG|TABLE", help="A config or preset:NAME; or a table: main, ablation, ..."
    ),
]
Rows = Annotated[str, typer.Option(help='Only rows called so: "prism* random*".')]


def compare(
    config: Grid,
    overrides: Overrides = None,
    rows: Rows = "*",
    only_table: Annotated[
        bool, typer.Option("--only-table", help="Run nothing; tabulate what has finished.")
    ] = False,
    launch: Launch = None,
    nproc: NumProcesses = None,
) -> None:
    """Select, tune and evaluate every selector, row, budget and seed; tabulate side by side."""
    from prism_tune.cli.run import find_launcher
    from prism_tune.config.secrets import redact_text

    loaded, run = open_run(find_grid(config), overrides)
    launcher = find_launcher(launch, nproc)
    command = redact_text(" ".join(["prism-tune compare", config, *(overrides or [])]))
    with patience(loaded.training.grace_seconds + TO_LEAVE_SECONDS):
        finished = run_grid(
            loaded, run, launcher, command=command, rows=rows.split(), only_table=only_table
        )
    if not finished:
        raise typer.Exit(1)


def plan(
    config: Grid,
    overrides: Overrides = None,
    rows: Rows = "*",
    tflops: Annotated[
        float | None, typer.Option(min=1e-6, help="What a device computes, 10^12 FLOPs a second.")
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, help="Devices that tune together.")] = 1,
) -> None:
    """Say what of a config or a table is done, would run or rerun and why, and what that costs.

    Ends with an error when the selection or the training of a run that is left would be refused.
    """
    loaded, _ = open_run(find_grid(config), overrides)
    from prism_tune.cli.changes import find_changes
    from prism_tune.compare.plan import make_plan
    from prism_tune.compare.plan_table import build_plan_table
    from prism_tune.results.render import render

    made = make_plan(loaded, rows.split(), find_changes)
    typer.echo(render(build_plan_table(made, tflops, nproc), "md"))
    check_all(cell.config for cell, remaining in made.remaining.items() if "train" in remaining)


def status(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Run folders, or folders of them: runs/"),
    ] = None,
) -> None:
    """Show run folders side by side: what has finished, who is at work, time and disk.

    Ends with 1 when one of them cannot be read: its row says so, and the line below why.
    """
    from prism_tune.compare.status import build_status
    from prism_tune.results.render import render

    status = build_status(folders or [Path("runs")])
    typer.echo(render(status.table, "md"))
    if status.faults:
        raise typer.Exit(1)
