"""The grid: a config with a `compare` section in, its runs and their tables out.

Every cell is an ordinary run (select, train, evaluate), made by the verbs of the command line in
processes of their own; what they leave in the run folders is read back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from prism_tune.compare.cells import Cell
from prism_tune.compare.children import ask_all_to_end
from prism_tune.compare.files import look_at_files_again
from prism_tune.compare.grid_cells import plan_before, plan_cells, require_section
from prism_tune.compare.launch import Launcher
from prism_tune.compare.progress import Progress
from prism_tune.compare.publish import check_results, publish
from prism_tune.compare.workers import Main, share_out
from prism_tune.config.load import render_config
from prism_tune.config.secrets import find_secrets
from prism_tune.config.sections import Config
from prism_tune.errors import ConfigError, UserError
from prism_tune.interrupts import Interrupted
from prism_tune.processes import world_size
from prism_tune.results.overlap import read_planted
from prism_tune.run.folder import RunDir, write_atomic

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0  # before a crash is tried again: an interrupt reaches the verb first


def compare(
    config: Config,
    run: RunDir,
    launcher: Launcher,
    *,
    check: Main,
    command: str,
    rows: Sequence[str] = ("*",),
    only_table: bool = False,
) -> bool:
    """Run the cells that have not finished, and write the comparison and the tables.

    A failed cell is tried again; a finished one is run only if its config or files changed.

    Args:
        config: the experiment, with a `compare` section.
        run: whose folder holds the cells.
        launcher: starts verbs.
        check: ends otherwise than with 0 where one of the configs it is given (their paths) cannot
            be right; it may load what this room may not, in a process of its own.
        command: that goes on with this comparison, for the reader of the table.
        rows: patterns of the selectors and rows to run; the others are tabulated as they are.
        only_table: run nothing, and tabulate what has finished.

    Returns:
        Whether no cell of these rows has failed.

    Raises:
        ConfigError: a `compare` section that cannot be used, or a config with a secret in it.
        UserError: launched with several processes, data that could not be prepared or did not pass
            the audit, or a finished cell that cannot be read.
    """
    if world_size() > 1:
        raise UserError(
            "compare takes no launcher: it starts its own processes (compare.num_processes, and "
            "--launch torchrun for cells on several GPUs)"
        )
    cells = plan_cells(config, run, rows)
    if only_table:
        check_results(plan_cells(config, run))
    else:
        _run_pending(config, run, cells, launcher, check)
    has_succeeded = not any(cell.state() == "failed" for cell in cells)
    publish(config, run, plan_cells(config, run), command)  # not of these rows alone
    return has_succeeded


def _run_pending(
    config: Config, run: RunDir, cells: Sequence[Cell], launcher: Launcher, check: Main
) -> None:
    """What the cells need first: data, trainings they start from, an audit; then the cells."""
    due = [cell for cell in cells if cell.state() != "finished"]
    if due:
        before = plan_before(config, run, due)
        _refuse_secrets([*before, *due])
        num_at_once = require_section(config).num_processes if launcher.kind == "local" else 1
        launcher.prepare(num_at_once)
        tuned = [cell for cell in [*before, *due] if "train" in cell.verbs]
        if launcher.check(check, [str(_write_config(cell)) for cell in tuned]) != 0:
            raise ConfigError(f"{config.name}: a row that cannot be selected or tuned; see above")
        first = [c for c in before if c.state() != "finished"]
        _prepare([*first, *due], launcher)
        if planted := require_section(config).planted:  # may be what was just prepared
            read_planted(Path(planted))
        _run_cells(first, launcher, 1)
        look_at_files_again()
        due = [cell for cell in cells if cell.state() != "finished"]
    logger.info("compare: %d cells, %d to run", len(cells), len(due))
    if due:
        _audit(due, run, launcher)
        _run_cells(due, launcher, num_at_once)


def _refuse_secrets(cells: Sequence[Cell]) -> None:
    """A cell's config is a file that others may read, and its verbs would read `<redacted>`."""
    for cell in cells:
        if keys := find_secrets(cell.config.model_dump(mode="json")):
            raise ConfigError(
                f"{cell.config.name}: {', '.join(f'`{key}`' for key in keys)}: looks like a "
                "password, token or key in it, and compare would write it into its cells' configs, "
                "which are files to share; expected none: put it into the environment, which every "
                "run and a server that it starts inherit (OPENAI_API_KEY for evaluation.base_url, "
                "HF_TOKEN for the hub)"
            )


def _prepare(cells: Sequence[Cell], launcher: Launcher) -> None:
    """Data that a config says how to make, each kind once; they are not there on a first call."""
    kinds = {cell.config.data.prepare: cell for cell in reversed(cells) if cell.config.data.prepare}
    for cell in kinds.values():
        if launcher.run(["prepare", str(_write_config(cell))]) != 0:
            raise UserError(f"data.prepare: {cell.config.data.prepare} failed; see above")


def _audit(pending: Sequence[Cell], run: RunDir, launcher: Launcher) -> None:
    """Each pool once, before anything is paid for, in the grid's own run folder."""
    pools = {cell.config.data.model_dump_json(): cell for cell in reversed(pending)}
    own = {"name": run.root.name, "output_dir": str(run.root.parent)}
    path = run.root / "audit.yaml"
    for cell in pools.values():
        write_atomic(path, render_config(cell.config.model_copy(update=own)))
        if launcher.run(["audit", str(path)]) != 0:
            raise UserError(f"{cell.config.data.records}: did not pass the audit; see above")


def _run_cells(cells: Sequence[Cell], launcher: Launcher, num_at_once: int) -> None:
    """So many at a time, in their order."""
    if not cells:
        return
    progress = Progress(len(cells))
    slots: SimpleQueue[int] = SimpleQueue()
    for number in range(num_at_once):
        slots.put(number)

    stopped = Event()

    def run_next(cell: Cell) -> str | None:
        slot = slots.get()
        try:
            return _run_cell(cell, launcher, share_out(slot, num_at_once), stopped, progress)
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(num_at_once) as pool:
        futures = {pool.submit(run_next, cell): cell for cell in cells}
        try:
            left = set(futures)
            while left:
                done, left = wait(left, progress.pause_seconds, return_when=FIRST_COMPLETED)
                for future in done:
                    progress.report(futures[future], future.result())
                if not done:
                    progress.tell()
        except Interrupted:
            ask_all_to_end()
            raise
        finally:  # after an interrupt: what has not begun is not begun
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _run_cell(
    cell: Cell,
    launcher: Launcher,
    environment: dict[str, str],
    stopped: Event,
    progress: Progress,
) -> str | None:
    """Run the verbs of a cell; what ended the one that failed."""
    path = str(_write_config(cell))
    changed = cell.changed()
    if changed:
        logger.info("compare: %s runs again (changed: %s)", cell.config.name, ", ".join(changed))

    def run_verb(*arguments: str) -> str | None:
        progress.begin(cell, arguments[0])
        return _run_verb(cell.output, arguments, launcher, environment, stopped)

    for verb in cell.verbs:
        error = run_verb(verb, path)
        if error and verb == "train" and {"subset", "model"} & set(changed):
            # Of what the grid itself has trained from other inputs it may make another.
            error = run_verb(verb, path, "--force")
        if error:
            return error
    return None


def _run_verb(
    output: Path,
    arguments: Sequence[str],
    launcher: Launcher,
    environment: dict[str, str],
    stopped: Event,
) -> str | None:
    """Run one verb; a crash is tried once more. What ended it, if it failed."""
    for is_last in (False, True):
        begin = output.stat().st_size if output.exists() else 0
        code = launcher.run(arguments, environment=environment, output=output)
        if code == 0:
            return None
        complaint, last = _read_end(output, begin)
        if complaint or is_last or stopped.wait(_PAUSE_SECONDS):
            break
    return complaint or f"the process ended with exit code {code}: {last}"


def _write_config(cell: Cell) -> Path:
    path = cell.folder / "cell.yaml"
    write_atomic(path, render_config(cell.config))
    return path


def _read_end(path: Path, begin: int) -> tuple[str | None, str]:
    """What the user can mend, as the command line says it; and the last line."""
    with path.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace")
    _, said, complaint = ("\n" + text).rpartition("\nerror: ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (complaint.strip() if said else None), (lines[-1] if lines else "it printed nothing")
