"""The verbs of one experiment's config: its stages, and what looks at it. Parsing only."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from prism_tune.cli.options import ConfigPath, Force, Overrides, loading, open_run
from prism_tune.config.sections import Config, ExportLayout

if TYPE_CHECKING:
    from prism_tune.run.folder import RunDir


def prepare(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Fetch, verify and assemble what the config's `data.prepare` names."""
    loaded, _ = open_run(config, overrides)
    from prism_tune.quickstart.prepare import prepare as run_prepare

    run_prepare(loaded, force=force)


def audit(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Check every record and image; exit code 1 when some have to be mended or skipped."""
    loaded, run = open_run(config, overrides)
    with loading():
        from prism_tune.audit.audit import audit as run_audit

    if not run_audit(loaded, run, force=force):
        raise typer.Exit(1)


def select(
    config: ConfigPath,
    overrides: Overrides = None,
    force: Force = False,
    layout: Annotated[
        ExportLayout | None,
        typer.Option("--as", help="Write it for this trainer too, in selection/exports/."),
    ] = None,
) -> None:
    """Score the pool and write the subset."""
    loaded, run = open_run(config, overrides)
    with loading():
        from prism_tune.processes import is_main
        from prism_tune.selection.export.layouts import export_run
        from prism_tune.selection.select import select as run_select

    run_select(loaded, run, force=force, tune=_tune)
    if layout is not None and is_main():
        export_run(run, layout)


def _tune(config: Config, run: RunDir) -> None:
    """The training stage, for what a selection has to have trained first; loaded only then."""
    from prism_tune.training.train import train as run_train

    run_train(config, run)


def train(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Tune the model on the subset (or the pool)."""
    loaded, run = open_run(config, overrides)
    with loading():
        from prism_tune.training.train import train as run_train

    run_train(loaded, run, force=force)


def evaluate(config: ConfigPath, overrides: Overrides = None, force: Force = False) -> None:
    """Answer the benchmarks' questions and score the answers."""
    loaded, run = open_run(config, overrides)
    with loading():
        from prism_tune.evaluation.evaluate import evaluate as run_evaluate

    run_evaluate(loaded, run, force=force)


def preview(
    config: ConfigPath,
    overrides: Overrides = None,
    num_records: Annotated[int, typer.Option("--num-records", "-n", min=1)] = 3,
    names: Annotated[
        list[str] | None, typer.Option("--id", help="This one, by id or uid; again for more.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Of this source alone.")] = None,
    subset: Annotated[bool, typer.Option("--subset", help="Of what was selected alone.")] = False,
) -> None:
    """Show records as the model will see them: tokens, label mask, images."""
    loaded, run = open_run(config, overrides)
    from prism_tune.training.preview import Choice
    from prism_tune.training.preview import preview as run_preview

    choice = Choice(num_records, tuple(names or ()), source, run if subset else None)
    folder = Path(mkdtemp(prefix="prism_tune_preview_"))
    with ExitStack() as unless_shown:
        unless_shown.callback(rmtree, folder)
        run_preview(loaded, folder, choice)
        unless_shown.pop_all()


def show(
    config: ConfigPath,
    overrides: Overrides = None,
    key: Annotated[str, typer.Option(help="Print only this value, for example `name`.")] = "",
) -> None:
    """Print the resolved config."""
    from prism_tune.config.load import load_config, render_config

    typer.echo(render_config(load_config(config, overrides or []), key))


def presets() -> None:
    """List what ships with prism_tune: configs for every verb, and DeepSpeed files."""
    from prism_tune.config.presets import PREFIX, describe_preset, list_presets

    configs = list_presets("experiments")
    width = max(map(len, configs)) + len(PREFIX)
    for name, path in configs.items():
        typer.echo(f"{PREFIX + name:{width}}  {describe_preset(path)}")
    typer.echo("\nDeepSpeed files, for training.deepspeed:")
    typer.echo("  ".join(PREFIX + name for name in list_presets("deepspeed")))
