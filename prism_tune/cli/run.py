"""The verb run: all stages of a config, told step by step; of one with `compare`, its whole grid.

Each step is a verb of the command line, started by a `Launcher`. What has finished says so and is
skipped; what fails ends the job, and the same command goes on from there.
"""

from __future__ import annotations

import runpy
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from prism_tune.cli.options import ConfigPath, Overrides, open_run
from prism_tune.compare.launch import Kind, Launcher, choose_launcher
from prism_tune.config.secrets import redact_text
from prism_tune.interrupts import SIGNALS, patience

if TYPE_CHECKING:
    from prism_tune.compare.cells import Cell
    from prism_tune.config.sections import Config
    from prism_tune.run.folder import RunDir

Launch = Annotated[
    Kind | None,
    typer.Option(
        envvar="LAUNCH",
        help="local: one process | torchrun: one per GPU | slurm: in a job, on all its nodes. "
        "Default: torchrun where there are several GPUs, else local.",
    ),
]
NumProcesses = Annotated[
    int | None,
    typer.Option("--nproc", envvar="NPROC", min=1, help="Processes of torchrun. Default: GPUs."),
]

TO_LEAVE_SECONDS = 15
"""What a verb takes to end once its training has saved."""
_TOLD = {2, *(128 + signum for signum in SIGNALS)}
"""Exit codes of a step that are the job's as well; every other is 1."""
_PRELOAD = (
    "prism_tune.cli.app",
    "prism_tune.selection.select",
    "prism_tune.training.train",
    "prism_tune.evaluation.evaluate",
    "deepspeed",
)


@dataclass(frozen=True)
class Step:
    """A verb with its arguments, and what is said before it."""

    title: str
    why: str
    cost: str
    arguments: tuple[str, ...]


def run(
    config: ConfigPath,
    overrides: Overrides = None,
    launch: Launch = None,
    nproc: NumProcesses = None,
) -> None:
    """Audit, select, tune, evaluate, tabulate and report; what has finished is skipped.

    A config with a `compare` section is run as `compare` does, and the report is of its last
    selector, the others beside it.
    """
    loaded, folder = open_run(config, overrides)
    launcher = find_launcher(launch, nproc)
    given = (str(config), *(overrides or []))
    if loaded.compare is None:
        steps = list(plan_steps(loaded, given))
        num_at_once = 1
    else:
        shown, steps = plan_grid(loaded, folder, given)
        folder = shown.run
        num_at_once = loaded.compare.num_processes if launcher.kind == "local" else 1
    launcher.prepare(num_at_once)
    with patience(loaded.training.grace_seconds + TO_LEAVE_SECONDS):
        if loaded.compare is None:  # a grid is checked cell by cell
            _check(launcher, given)
        for number, step in enumerate(steps, start=1):
            _do(number, step, launcher)
    typer.echo(f"\nReport:     {folder.report / 'index.html'}\nRun folder: {folder.root}")


def find_launcher(launch: Kind | None, num_processes: int | None) -> Launcher:
    """What starts the verbs.

    Raises:
        ConfigError: slurm outside of a job.
    """
    return choose_launcher(launch, num_processes, run_arguments, _PRELOAD)


def run_arguments(arguments: Sequence[str]) -> NoReturn:
    """As `python -m prism_tune` with these arguments would, in a process that is its own."""
    sys.argv = ["prism-tune", *arguments]
    runpy.run_module("prism_tune", run_name="__main__")
    sys.exit(0)


def plan_steps(config: Config, given: tuple[str, ...]) -> Iterator[Step]:
    """What the main job consists of.

    Args:
        config: as `given` loads it.
        given: path and overrides, to which each step adds its own.
    """
    from prism_tune.compare.plan import rows_beside

    name, runs = config.name, Path(config.output_dir)
    given = tuple(part for part in given if not part.startswith("name="))  # each step has its own
    if config.data.prepare:
        yield _prepare_step(given)
    yield Step(
        "Audit",
        "every record and image is looked at before a device is paid for",
        "minutes per 100,000 images; nothing when neither has changed",
        ("audit", *given, _rename(name)),
    )
    others = rows_beside(config)
    for other, overrides in others.items():
        yield from _row_steps(config, other, (*given, *overrides))
    yield from _row_steps(config, None, (*given, _rename(name)))
    folders = {other: str(runs / f"{name}-{other}") for other in others}
    rows = [part for folder in folders.values() for part in ("--runs", folder)]
    baseline = ["--baseline", f"{name}-random"] if "random" in others else []
    if config.evaluation.benchmarks:
        yield Step(
            "Table",
            "the runs side by side, with what selecting and tuning cost",
            "seconds",
            ("tables", "main", *rows, *baseline, "--runs", str(runs / name)),
        )
    beside = [part for folder in folders.values() for part in ("--compare", folder)]
    yield _report_step(runs / name, beside)


def _rename(name: str) -> str:
    """The override; in quotes where YAML would read a number or a truth (`2024`, `no`, `1e5`)."""
    from omegaconf import OmegaConf

    plain = f"name={name}"
    return plain if OmegaConf.from_dotlist([plain]).name == name else f"name='{name}'"


def plan_grid(config: Config, run: RunDir, given: tuple[str, ...]) -> tuple[Cell, list[Step]]:
    """What the main job consists of where the config has a `compare` section.

    Returns:
        The cell that the report is of: the last selector's at the first budget and seed. And the
        steps.

    Raises:
        ConfigError: a section that cannot be used.
    """
    from prism_tune.compare.grid_cells import plan_cells

    cells = plan_cells(config, run)
    first = [cell for cell in cells if cell.seed == cells[0].seed]
    budget = next((cell.budget for cell in first if cell.budget is not None), None)
    beside = [cell for cell in first if cell.budget in (budget, None)]
    shown = next((c for c in reversed(beside) if "select" in c.verbs), beside[-1])
    others = [part for c in beside if c is not shown for part in ("--compare", str(c.run.root))]
    names = ", ".join(dict.fromkeys(cell.selector for cell in cells))
    steps = [
        _prepare_step(given),
        Step(
            f"Compare: {names}",
            "each is selected, tuned and evaluated alike; a selector has to beat Random",
            f"{len(cells)} runs, whose progress is printed; nothing for those that have finished",
            ("compare", *given),
        ),
        _report_step(shown.run.root, others),
    ]
    return shown, steps if config.data.prepare else steps[1:]


def _prepare_step(given: tuple[str, ...]) -> Step:
    return Step(
        "Prepare",
        "fetches and verifies the model and the data that the config names",
        "a download once, then half a minute of assembling; nothing when it is there",
        ("prepare", *given),
    )


def _report_step(root: Path, beside: Sequence[str]) -> Step:
    return Step(
        "Report",
        "a page to look at: what was kept, what was dropped, and why",
        "seconds; up to two minutes for a pool of 665,000 records",
        ("report", str(root), *beside),
    )


def _row_steps(config: Config, other: str | None, arguments: tuple[str, ...]) -> Iterator[Step]:
    """One row of the table: select, tune, evaluate, as far as it does."""
    from prism_tune.compare.cells import stages_of
    from prism_tune.config.references import reference_of

    scorer, reference = config.selection.scorer, reference_of(config.selection)
    warms_up = reference is not None and reference.warmup is not None
    what, kept, cost = {
        None: (
            config.name,
            f"the records that the scorer '{scorer}' keeps",
            "a warm-up is tuned first, then its evidence is read of every record"
            if warms_up
            else "seconds to an hour: a shallow forward pass per unique image",
        ),
        "random": (
            "Random subset",
            "as many records drawn at random: what a selector has to beat",
            "seconds: no model",
        ),
        "untuned": ("untuned", "", ""),
    }[other]
    asked = "answers every benchmark question, then scores them by the official rules"
    floor = "what the model can do before tuning, the floor of the table"
    told = {
        "select": ("Select", kept, cost),
        "train": (
            "Tune",
            "visual instruction tuning on these records",
            "the largest share; grows with the number of records",
        ),
        "evaluate": (
            "Evaluate",
            floor if other == "untuned" else asked,
            "minutes per benchmark: one generated answer per question",
        ),
    }
    verbs = ("evaluate",) if other == "untuned" else stages_of(config)
    for verb in verbs:
        title, why, takes = told[verb]
        yield Step(f"{title}: {what}", why, takes, (verb, *arguments))


def _run_here(step: Step, launcher: Launcher) -> int:
    """Run the verb compare with this launcher: it starts the verbs of its runs itself."""
    from prism_tune.cli.grid import run_grid

    _, path, *overrides = step.arguments
    loaded, run = open_run(Path(path), overrides)
    command = redact_text(" ".join(["prism-tune", *step.arguments]))
    return 0 if run_grid(loaded, run, launcher, command=command) else 1


def _check(launcher: Launcher, given: Sequence[str]) -> None:
    """What the last stage would refuse is said before the first is paid for."""
    from prism_tune.cli.grid import check_given

    code = launcher.check(check_given, given)
    if code != 0:
        raise typer.Exit(code if code in _TOLD else 1)


def _do(number: int, step: Step, launcher: Launcher) -> None:
    typer.echo(f"\n=== {number}. {step.title}\n    why:  {step.why}\n    cost: {step.cost}")
    command = launcher.command(step.arguments) or ["prism-tune", *step.arguments]
    typer.echo(f"    run:  {redact_text(shlex.join(command))}")
    begin = time.monotonic()
    code = (
        _run_here(step, launcher)
        if step.arguments[0] == "compare"
        else launcher.run(step.arguments)
    )
    if code != 0:
        typer.echo(
            f"\nStep {number} ({step.title}) did not finish (exit code {code}); the reason stands "
            "above. Once that is mended, the same command goes on from here.",
            err=True,
        )
        raise typer.Exit(code if code in _TOLD else 1)
    typer.echo(f"    took: {time.monotonic() - begin:.0f} s")
