"""Run folders side by side: which stages have finished, who is at work, time and disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prism_tune.errors import UserError, first_line
from prism_tune.results.render import INAPPLICABLE, Cell, Table, number_cell
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.stage import Stage
from prism_tune.run.timings import read_timings
from prism_tune.run.writer import find_writer
from prism_tune.run.written import ANEW, altered_records, read_log

_HEADER = ("Run", "Now", "audit", "select", "train", "evaluate", "device-h", "disk, GB")


@dataclass(frozen=True)
class Status:
    """The table, and why some run folders cannot be read."""

    table: Table
    faults: tuple[str, ...]


def build_status(folders: Sequence[Path]) -> Status:
    """A row for each run folder below these, or of these; cells of comparisons too.

    One that cannot be read has a row that says so, and its reason below.

    Raises:
        UserError: there is none.
    """
    runs = [run for folder in folders for run in _list_runs(folder)]
    if not runs:
        named = ", ".join(map(str, folders))
        raise UserError(f"{named}: no run folder there; `prism-tune run CONFIG` makes one")
    faults: list[str] = []
    rows = tuple(_describe_readable(run, faults) for run in runs)
    at_work = sum(row[1].text.startswith("at work") for row in rows)
    notes = (
        f"{len(rows)} runs, {at_work} at work. `prism-tune plan CONFIG` says what is left of one.",
        "Evaluate: finished benchmarks. Device-h: metered, resumed attempts included.",
        *faults,
    )
    table = Table(title="Status", header=_HEADER, rows=rows, notes=notes)
    return Status(table, tuple(faults))


def _list_runs(folder: Path) -> list[RunDir]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    inside = [] if _is_run(folder) else sorted(p for p in folder.iterdir() if p.is_dir())
    places = (folder, *inside)
    cells = [cell for path in places for cell in sorted((path / "cells").glob("*/"))]
    return [RunDir(path) for path in (*places, *cells) if _is_run(path)]


def _is_run(folder: Path) -> bool:
    try:
        return (folder / "timings.json").exists() or any(
            Stage(folder / part).path.exists() for part in ("audit", "selection", "training")
        )
    except PermissionError:  # its row will say so
        return True


def _describe_readable(run: RunDir, faults: list[str]) -> tuple[Cell, ...]:
    """Its row; of what cannot be read the name alone, and the reason is added to `faults`."""
    try:
        return _describe(run)
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or run.root}: {error.strerror}"
    except (TypeError, ValueError, AttributeError) as error:  # values of another kind
        altered = [p for p in altered_records() if p.is_relative_to(run.root.absolute())]
        where = ", ".join(map(str, altered)) or f"one of its files ({first_line(error)})"
        reason = f"{where}: not as it was written: {ANEW}"
    faults.append(f"{run.root} cannot be read: {reason}.")
    nothing = (Cell(INAPPLICABLE),) * (len(_HEADER) - 2)
    return (Cell(run.root.name, names=(str(run.root),)), Cell("cannot be read"), *nothing)


def _describe(run: RunDir) -> tuple[Cell, ...]:
    audit, selection = Stage(run.audit).record(), Stage(run.selection).record()
    ok = {None: INAPPLICABLE, True: "ok", False: "to mend"}
    found = None if audit is None else bool(audit["outputs"].get("ok"))
    benchmarks = sorted(path.parent.name for path in run.evaluation.glob("*/stage.json"))
    seconds = sum(entry["device_seconds"] for entry in read_timings(run))
    return (
        Cell(run.root.name, names=(str(run.root),)),
        Cell(_now(run)),
        Cell(ok[found]),
        Cell(INAPPLICABLE if selection is None else _kept(run)),
        Cell(_trained(run)),
        Cell(", ".join(benchmarks) or INAPPLICABLE),
        number_cell(seconds / 3600, digits=2),
        number_cell(_count_bytes(run.root) / 1e9, digits=2),
    )


def _count_bytes(root: Path) -> int:
    """Of the files below a folder, but for links and what the run removes meanwhile."""
    total = 0
    for folder, _, names in os.walk(root):  # which passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                found = os.lstat(os.path.join(folder, name))
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _now(run: RunDir) -> str:
    """Who is at work there, or in the cells of its comparison; else whether all has finished."""
    if writer := find_writer(run):
        return writer
    cells = [RunDir(path) for path in (run.root / "cells").glob("*/") if _is_run(path)]
    at_work = sum(find_writer(cell) is not None for cell in cells)
    if at_work:
        return f"at work in {at_work} of {len(cells)} cells begun"
    return "finished" if all(map(_is_whole, (run, *cells))) else "stopped"


def _is_whole(run: RunDir) -> bool:
    """Every stage that was begun has finished, by its last attempt."""
    entries = read_timings(run)
    last = {entry["stage"].removesuffix(".next"): entry["finished"] for entry in entries}
    return all(last.values()) and not run.next_training.exists()


def _kept(run: RunDir) -> str:
    path = run.selection / "manifest.json"
    manifest = read_object(path) if path.exists() else {}
    if "num_selected" not in manifest:
        return "finished"
    return f"{manifest['num_selected']:,} / {manifest['num_pool']:,}"


def _trained(run: RunDir) -> str:
    """Finished, with the last loss; or the step that it has come to."""
    folder = run.next_training if run.next_training.is_dir() else run.training
    lines = [line for line in read_log(folder / "log.jsonl") if "step" in line]
    losses = [f"{line['loss']:.3f}" for line in lines if "loss" in line]
    loss = f", loss {losses[-1]}" if losses else ""
    if Stage(folder).path.exists():
        return f"{lines[-1]['step'] if lines else '?'} steps{loss}"
    return f"at step {lines[-1]['step']}{loss}" if lines else INAPPLICABLE
