"""The verb compare. Parsing, and the verbs that a comparison is made of: it may not import them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_tune.cli.options import Overrides, open_run

if TYPE_CHECKING:
    from prism_tune.compare.cells import Verb
    from prism_tune.config.sections import Config
    from prism_tune.run.folder import RunDir


def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="With a `compare` section.")],
    overrides: Overrides = None,
    only_table: Annotated[
        bool, typer.Option("--only-table", help="Run nothing; tabulate what has finished.")
    ] = False,
) -> None:
    """Select, tune and evaluate with every selector, budget and seed; tabulate side by side."""
    from prism_tune.compare.compare import compare as run_compare
    from prism_tune.run.log import open_log

    loaded, run = open_run(config, overrides)
    if not only_table:
        open_log(run.log)
    finished = run_compare(
        loaded,
        run,
        run_verb=run_verb,
        feature_key=feature_key,
        command=" ".join(["prism-tune compare", str(config), *(overrides or [])]),
        only_table=only_table,
    )
    if not finished:
        raise typer.Exit(1)


def run_verb(verb: Verb, config: Config, run: RunDir) -> None:
    """Run one verb of a cell, in a process that may have run others."""
    from prism_tune.run.log import setup_logging

    setup_logging()
    if verb == "select":
        from prism_tune.selection.select import select

        select(config, run)
    elif verb == "train":
        from prism_tune.training.train import train

        train(config, run)
    else:
        from prism_tune.evaluation.evaluate import evaluate

        evaluate(config, run, force=False)


def feature_key(config: Config) -> str | None:
    """None: cells share their evidence by its content."""
    return None
