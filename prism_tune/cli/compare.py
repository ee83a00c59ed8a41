"""The verbs about grids: compare and plan. Parsing only, as in `app.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from prism_tune.cli.run import Launch, NumProcesses

Rows = Annotated[str, typer.Option(help='Only rows called so: "prism* random*".')]
GRIDS = Path("configs/experiments/tables")


def compare(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|TABLE", help="With a `compare` section; or main, ablation, ..."
        ),
    ],
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads this at run time on Python 3.10
        typer.Argument(metavar="[KEY=VALUE]...", help="For example compare.seeds=[0,1]"),
    ] = None,
    rows: Rows = "*",
    only_table: Annotated[
        bool, typer.Option("--only-table", help="Run nothing; tabulate what has finished.")
    ] = False,
    launch: Launch = None,
    nproc: NumProcesses = None,
) -> None:
    """Select, tune and evaluate every selector, row, budget and seed; tabulate side by side."""
    from prism_tune.cli.run import find_launcher
    from prism_tune.compare.compare import compare as run_compare
    from prism_tune.config.load import load_config
    from prism_tune.run.folder import RunDir
    from prism_tune.run.log import open_log, setup_logging

    setup_logging()
    loaded = load_config(find_grid(config), overrides or [])
    run = RunDir(Path(loaded.output_dir) / loaded.name)
    launcher = find_launcher(launch, nproc)
    if not only_table:
        open_log(run.log)
    finished = run_compare(
        loaded,
        run,
        launcher,
        command=" ".join(["prism-tune compare", config, *(overrides or [])]),
        rows=rows.split(),
        only_table=only_table,
    )
    if not finished:
        raise typer.Exit(1)


def plan(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG|TABLE", help="Any config; or main, ablation, ...")
    ],
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="For example compare.seeds=[0,1]"),
    ] = None,
    rows: Rows = "*",
    tflops: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=1e-6, help="What a device computes, 10^12 FLOPs a second."),
    ] = None,
) -> None:
    """Say which runs a config or a table takes, what is done, and what the rest costs."""
    from prism_tune.compare.plan import make_plan
    from prism_tune.compare.plan_table import build_plan_table
    from prism_tune.config.load import load_config
    from prism_tune.results.render import render

    made = make_plan(load_config(find_grid(config), overrides or []), rows.split())
    typer.echo(render(build_plan_table(made, tflops), "md"))


def find_grid(name: str) -> Path:
    """The config of a table by its name, or any config by its path.

    Raises:
        ConfigError: neither.
    """
    from prism_tune.errors import ConfigError

    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    path = GRIDS / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in GRIDS.glob("*.yaml")))
        reason = (
            f"there are {known}" if known else f"{GRIDS} is not here: call this in the repository"
        )
        raise ConfigError(f"no table {name!r}; {reason}, or give the path of a config")
    return path
