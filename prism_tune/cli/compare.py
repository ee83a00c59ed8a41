"""The verbs about grids: compare and plan. Parsing only, as in `app.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from prism_tune.cli.options import Overrides, end_with_errors, open_run
from prism_tune.cli.run import TO_LEAVE_SECONDS, Launch, NumProcesses
from prism_tune.interrupts import patience

GRIDS = Path("configs/experiments/tables")
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
    from prism_tune.compare.run_grid import compare as run_compare
    from prism_tune.config.secrets import redact_text
    from prism_tune.run.log import open_log

    loaded, run = open_run(find_grid(config), overrides)
    launcher = find_launcher(launch, nproc)
    if not only_table:
        open_log(run.log)
    with patience(loaded.training.grace_seconds + TO_LEAVE_SECONDS):
        finished = run_compare(
            loaded,
            run,
            launcher,
            check=check_selections,
            command=redact_text(" ".join(["prism-tune compare", config, *(overrides or [])])),
            rows=rows.split(),
            only_table=only_table,
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
    """Say what of a config or a table is done, would run or rerun and why, and what that costs."""
    loaded, _ = open_run(find_grid(config), overrides)
    from prism_tune.cli.changes import find_changes
    from prism_tune.compare.plan import make_plan
    from prism_tune.compare.plan_table import build_plan_table
    from prism_tune.results.render import render

    made = make_plan(loaded, rows.split(), find_changes)
    typer.echo(render(build_plan_table(made, tflops, nproc), "md"))


def status(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Run folders, or folders of them: runs/"),
    ] = None,
) -> None:
    """Show run folders side by side: what has finished, who is at work, time and disk."""
    from prism_tune.compare.status import build_status
    from prism_tune.results.render import render

    typer.echo(render(build_status(folders or [Path("runs")]), "md"))


def check_selections(paths: Sequence[str]) -> NoReturn:
    """Refuse configs whose scorer does not exist or does not take its options."""
    from prism_tune.selection.inputs import resolve_selection

    end_with_errors(lambda: [resolve_selection(open_run(Path(p), None)[0]) for p in paths])
    sys.exit(0)


def find_grid(name: str) -> Path:
    """The config of a table by its name, or any config by its path or `preset:NAME`.

    Raises:
        ConfigError: neither.
    """
    from prism_tune.config.presets import PREFIX, find_file, list_presets
    from prism_tune.errors import ConfigError

    if name.startswith(PREFIX) or Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    path = find_file(GRIDS / f"{name}.yaml", "experiments")
    if not path.exists():
        shipped = [preset for preset in list_presets("experiments") if preset.startswith("tables/")]
        known = ", ".join(Path(preset).name for preset in shipped)
        raise ConfigError(
            f"no table {name!r}; there are {known}, or give the path of a config or preset:NAME"
        )
    return path
