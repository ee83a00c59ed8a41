"""`prism-tune plan`: which runs a grid or a config takes, what is done, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prism_tune.compare.cells import Cell, Verb, stages_of
from prism_tune.compare.grid_cells import plan_before, plan_cells
from prism_tune.config.load import override_config
from prism_tune.config.pool_paths import part_split
from prism_tune.config.sections import Config
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage

Look = Callable[[Config, RunDir, Verb], list[str]]
"""What a finished stage would run again for."""


@dataclass(frozen=True)
class Plan:
    """The runs of a grid and the trainings they start from, each with the verbs it still needs.

    `reasons` has, of verbs that have finished and would run again, why.
    """

    config: Config
    before: dict[Cell, tuple[Verb, ...]]
    runs: dict[Cell, tuple[Verb, ...]]
    reasons: dict[Cell, dict[Verb, str]] = field(default_factory=dict)

    @property
    def remaining(self) -> dict[Cell, tuple[Verb, ...]]:
        """All of them, in order."""
        return {**self.before, **self.runs}


def make_plan(config: Config, rows: Sequence[str] = ("*",), look: Look | None = None) -> Plan:
    """The plan of a grid; of a config without a `compare` section, of what `run` makes of it.

    Args:
        config: what to run.
        rows: patterns; selectors and rows whose name matches none are left out.
        look: at what finished stages depend on; None: they are taken as they are.

    Raises:
        ConfigError: a grid that cannot be read, or no row that matches.
    """
    run, reasons = RunDir(Path(config.output_dir) / config.name), {}

    def remain(cell: Cell) -> tuple[Verb, ...]:
        remaining, reasons[cell] = _find_remaining(cell, look)
        return remaining

    if config.compare is None:
        own = [*(override_config(config, o) for o in rows_beside(config).values()), config]
        return Plan(config, {}, {cell: remain(cell) for cell in map(_as_cell, own)}, reasons)
    runs = {cell: remain(cell) for cell in plan_cells(config, run, rows)}
    due = [cell for cell, remaining in runs.items() if remaining]
    before = {cell: remain(cell) for cell in plan_before(config, run, due)}
    return Plan(config, before, runs, reasons)


def rows_beside(config: Config) -> dict[str, tuple[str, ...]]:
    """What `prism-tune run` makes beside a config's own run: overrides, by what it is called."""
    if not config.evaluation.benchmarks or config.training.tuning == "none":
        return {}
    rows: dict[str, tuple[str, ...]] = {"untuned": ("training.tuning=none",)}
    if config.compare_random:
        rows["random"] = ("selection.scorer=random", "selection.options=null")
    return {row: (f"name={config.name}-{row}", *changes) for row, changes in rows.items()}


def find_missing(plan: Plan) -> list[str]:
    """Files that the remaining runs read and that are not there; not what the plan itself makes."""
    made = {str(cell.run.checkpoint) for cell in plan.before}
    missing: dict[str, None] = {}
    for cell, remaining in plan.remaining.items():
        config = cell.config
        if not remaining or config.data.prepare:
            continue
        benchmarks = config.evaluation.benchmarks if "evaluate" in remaining else ()
        reference = config.selection.reference if "select" in remaining else None
        own = [] if reference is None else [reference.model, reference.adapter]
        read = [config.model.path, config.data.records, *filter(None, own)]
        named = [path for path in read if not (part_split(path)[1] or _is_hub_id(path))]
        paths = [*named, config.data.image_dir]
        for name in benchmarks:
            data = config.evaluation.data.get(name)
            paths += [data.annotations, data.image_dir] if data else []
        missing |= dict.fromkeys(
            path for path in paths if path and path not in made and not Path(path).exists()
        )
    return list(missing)


def _as_cell(config: Config) -> Cell:
    run = RunDir(Path(config.output_dir) / config.name)
    return Cell(config.name, None, config.seed, config, stages_of(config), run.root)


def _find_remaining(cell: Cell, look: Look | None) -> tuple[tuple[Verb, ...], dict[Verb, str]]:
    """The stages that have not finished or would run again, and why these would.

    All of them where the grid has seen its inputs change and nothing looks closer. What comes
    behind a stage that runs again is looked at when that has made its part anew; until then it
    counts as left.
    """
    if cell.state() == "finished":
        return (), {}
    run = cell.run
    folders: dict[Verb, list[Path]] = {
        "audit": [run.audit],
        "select": [run.selection],
        "train": [run.training],
        "evaluate": [run.benchmark(name) for name in cell.config.evaluation.benchmarks],
    }
    changed = cell.changed()
    remaining: list[Verb] = []
    reasons: dict[Verb, str] = {}
    for verb in cell.verbs:
        if not all(Stage(folder).path.exists() for folder in folders[verb]):
            remaining.append(verb)
        elif remaining and remaining != ["audit"]:
            remaining.append(verb)
            reasons[verb] = f"behind {remaining[-2]}"
        elif found := look(cell.config, run, verb) if look else []:
            remaining.append(verb)
            reasons[verb] = ", ".join(found)
        elif changed and look is None:
            remaining.append(verb)
    return tuple(remaining), reasons


def _is_hub_id(path: str) -> bool:
    """Whether a path that is not there can be OWNER/NAME of the hub."""
    folder = Path(path).parent
    return len(Path(path).parts) == 2 and not folder.is_absolute() and not folder.exists()
