"""What several verbs ask for, what errors become, and a verb whose many options are one value."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from prism_tune.interrupts import Interrupted, end_at_once, stop_raising

if TYPE_CHECKING:
    from prism_tune.config.sections import Config
    from prism_tune.errors import UserError
    from prism_tune.run.folder import RunDir

logger = logging.getLogger(__name__)

_LATER_SECONDS = 3.0
ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Experiment YAML, or preset:NAME.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="For example selection.budget=0.2"),
]
Force = Annotated[bool, typer.Option("--force", help="Run even when finished.")]
NewFolder = Annotated[Path, typer.Option("--to", help="A new directory.")]


def open_run(path: Path, overrides: list[str] | None) -> tuple[Config, RunDir]:
    """The config, and its run folder: nothing is written there before a stage begins."""
    from prism_tune.config.load import load_config
    from prism_tune.config.plugins import name_plugins
    from prism_tune.config.secrets import redact_text
    from prism_tune.processes import is_main
    from prism_tune.run.folder import RunDir
    from prism_tune.run.log import setup_logging

    setup_logging()
    config = load_config(path, overrides or [])
    name_plugins(config.plugins)
    sys.argv[1:] = map(redact_text, sys.argv[1:])  # wandb keeps the command line
    run = RunDir(Path(config.output_dir) / config.name)
    if is_main():  # at once: what comes next may have to load libraries and models first
        logger.info("%s -> %s", path, run.root)
    return config, run


def open_streams() -> None:
    """Where a shell has closed a stream (`2>&-`), nothing is printed; no file takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    logging.raiseExceptions = False  # a log that cannot be written is no traceback


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of a stage: the million objects that they make stay till the end.

    Looking for garbage among them, again and again, is a seventh of the start. Nor is it done
    later, which leaves the pages that they lie in to be shared with forked workers.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def end_with_errors(call: Callable[[], object]) -> None:
    """Call it; what the user can mend, or a request to end, becomes a message and a code."""
    try:
        try:
            _end_with_errors(call)
        finally:
            stop_raising()
    except Interrupted as interrupt:  # also one that came while another error was being said
        _leave(interrupt)


def _end_with_errors(call: Callable[[], object]) -> None:
    from prism_tune.config.secrets import redact_text
    from prism_tune.errors import ConfigError, SharedError, UserError, say

    try:
        call()
    except UserError as error:
        if _speaks(error):
            _tell(f"error: {redact_text(say(error))}", typer.colors.RED)
        code = 2 if isinstance(error, ConfigError) else 1
        _exit(error.code if isinstance(error, SharedError) else code)
    except Exception as error:  # noqa: BLE001 - the edge: whatever comes has an explanation
        _explain(error)
        _exit(1)


def _explain(error: Exception) -> None:
    """Say what a library has raised in a line; show a defect of ours whole."""
    from prism_tune.cli.faults import explain, show, show_defect, wants_traceback
    from prism_tune.config.secrets import redact_text

    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "prism-tune")
    told = explain(error, verb)
    if told is None:
        show_defect(error)
        return
    if wants_traceback():
        show(error)
    _tell(f"error: {redact_text(told)}", typer.colors.RED)


def _tell(message: str, colour: str) -> None:
    """Nobody may be there to read it: a terminal that is gone."""
    with suppress(OSError):
        typer.secho(message, err=True, fg=colour)


def _speaks(error: UserError) -> bool:
    """One mistake is said once: where others meet with it as well, the main process says it.

    Of what it does not know to be shared, a launcher ends the others once one has said it.
    """
    from prism_tune.errors import SharedError
    from prism_tune.processes import is_main

    if not is_main() and not isinstance(error, SharedError):
        time.sleep(_LATER_SECONDS)
    return is_main() or not isinstance(error, SharedError)


def _leave(interrupt: Interrupted) -> NoReturn:
    """End now: threads and workers that are still busy are not waited for."""
    from prism_tune.processes import is_main

    if is_main():
        message = f"{interrupt}: ends here; what is complete is kept, the same command goes on"
        _tell(message, typer.colors.YELLOW)
    _exit(128 + interrupt.signum, at_once=True)


def _exit(code: int, *, at_once: bool = False) -> NoReturn:
    """End; at once where others wait for this process, or where its workers need not be."""
    from prism_tune.processes import world_size

    if not at_once and world_size() == 1:
        sys.exit(code)
    logging.shutdown()
    with suppress(OSError):
        sys.stdout.flush()
    end_at_once(code)


def spread(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer reads it: its last parameter, a dataclass, as one option a field."""
    *plain, grouped = signature(verb, eval_str=True).parameters.values()
    options = signature(grouped.annotation, eval_str=True).parameters

    def call(**given: Any) -> None:
        fields = {name: given.pop(name) for name in options}
        verb(**given, **{grouped.name: grouped.annotation(**fields)})

    call.__name__, call.__doc__ = verb.__name__, verb.__doc__
    call.__signature__ = Signature([*plain, *options.values()])  # type: ignore[attr-defined]
    return call
