"""The verb that writes a first config. Parsing and asking only."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from prism_tune.config.sections import Template, Tuning


def init(
    config: Annotated[Path, typer.Argument(metavar="[CONFIG]", help="The file to write.")] = Path(
        "run.yaml"
    ),
    model: Annotated[str | None, typer.Option(help="A HF directory or hub id.")] = None,
    records: Annotated[str | None, typer.Option(help="The pool: docs/data.md.")] = None,
    image_dir: Annotated[
        str | None, typer.Option(help="Its images; else the folder beside it that has them.")
    ] = None,
    budget: Annotated[float, typer.Option(min=0, max=1, help="The share to keep.")] = 0.3,
    tuning: Annotated[Tuning, typer.Option(help="How to tune.")] = "lora",
    template: Annotated[Template, typer.Option(help="Where the model has none.")] = "auto",
) -> None:
    """Look at a model and a pool, and write a config that works; asks for what is not given."""
    from prism_tune.config.sections import NAME_PATTERN, ModelConfig
    from prism_tune.errors import ConfigError
    from prism_tune.run.folder import write_atomic
    from prism_tune.run.log import setup_logging

    setup_logging()
    if config.suffix not in (".yaml", ".yml") or not re.match(NAME_PATTERN, config.stem):
        raise ConfigError(f"{config}: expected a new file NAME.yaml; NAME names the run")
    if config.exists():
        raise ConfigError(f"{config}: is there already; remove it, or name another file")
    model = model or _ask("--model", "The model, a directory or hub id (OWNER/NAME)")
    records = records or _ask("--records", "The records, a file or folder of any common layout")
    typer.echo(f"looking at {model} and {records} ...", err=True)
    from prism_tune.models.hub import check_model

    check_model(ModelConfig(path=model))  # before what takes seconds to import
    from prism_tune.cli.proposal import Wish, propose

    wish = Wish(model, records, image_dir, template, tuning, budget)
    text, _ = propose(config.stem, wish)
    write_atomic(config, text)
    typer.echo(f"{text}\nwritten: {config}\nnext:    prism-tune plan {config}")
    typer.echo(f"         prism-tune preview {config}\n         prism-tune run {config}")


def _ask(option: str, question: str) -> str:
    """What somebody types; where nobody is there to, the option is named.

    Raises:
        ConfigError: nobody is.
    """
    from prism_tune.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(f"{option}: missing: {question[0].lower()}{question[1:]}")
    answer: str = typer.prompt(question)
    return answer
