"""The command line: one function per verb, in a file per group of verbs, and what errors become.

Everything heavy is imported inside the verb, so that `--help` answers at once.
Exit codes: 0 done, 1 failed, 2 usage or config.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from prism_tune import __version__
from prism_tune.cli.benchmarks import answers, data, judge, score
from prism_tune.cli.compare import compare, plan, status
from prism_tune.cli.init import init
from prism_tune.cli.models import assemble, chat, export
from prism_tune.cli.options import end_with_errors, open_streams
from prism_tune.cli.report import report
from prism_tune.cli.run import run
from prism_tune.cli.stages import (
    audit,
    evaluate,
    prepare,
    presets,
    preview,
    select,
    show,
    train,
)
from prism_tune.cli.tables import subset_app, tables
from prism_tune.interrupts import follow_launcher, raise_interrupts
from prism_tune.processes import check_launch

app = typer.Typer(
    name="prism-tune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def doctor() -> None:
    """Check versions, devices, disk and launchers; say what is missing and how to mend it."""
    typer.echo("trying what every run does; some seconds ...", err=True)
    from prism_tune.cli.doctor import diagnose

    if not diagnose():
        raise typer.Exit(1)


VERBS = (
    *(init, run, prepare, audit, select, train, evaluate, preview, show, presets),
    *(data, score, judge, answers),
    *(compare, plan, status, tables, report),
    *(chat, export, assemble, doctor),
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(subset_app, name="subset")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"prism_tune {__version__}")
        raise typer.Exit


@app.callback()
def of_every_verb(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and leave."),
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A Python file with scorers, benchmarks, ... of yours."),
    ] = None,
) -> None:
    """Select visual-instruction data without training, tune on it, evaluate, tabulate."""
    if plugin:
        from prism_tune.config.plugins import name_plugins

        name_plugins([str(path) for path in plugin])


def main() -> None:
    """Run the command line."""
    open_streams()
    end_with_errors(_run)


def _run() -> None:
    raise_interrupts()
    check_launch()
    follow_launcher()
    sys.argv[1:] = map(_expand, sys.argv[1:])
    app()


def _expand(word: str) -> str:
    """A path at home where no shell has expanded it: `--to=~/x`, or in quotes."""
    found = re.fullmatch(r"(--[\w-]+=)?(~.*)", word, re.DOTALL)
    return word if found is None else (found[1] or "") + os.path.expanduser(found[2])
