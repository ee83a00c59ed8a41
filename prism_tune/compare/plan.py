"""`prism-tune plan`: which runs a grid or a config takes, what is done, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prism_tune.compare.cells import Cell, Verb, stages_of
from prism_tune.compare.grid_cells import plan_before, plan_cells
from prism_tune.compare.selection_estimates import EMBEDDING
from prism_tune.config.hub_ids import may_be_hub_id
from prism_tune.config.load import override_config
from prism_tune.config.pool_paths import part_split
from prism_tune.config.presets import find_file
from prism_tune.config.sections import Config, ReferenceConfig, SelectionConfig
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage

BY_LM_EVAL = ("mmlu", "mmlu_pro", "hellaswag", "gsm8k")
"""Benchmarks whose data may be a hub id."""

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
    read = [
        path
        for cell, remaining in plan.remaining.items()
        for path in _list_files(cell.config, remaining)
    ]
    if plan.config.compare is not None and plan.config.compare.planted is not None:
        read.append(plan.config.compare.planted)
    return list(
        dict.fromkeys(path for path in read if path not in made and not Path(path).exists())
    )


def _list_files(config: Config, verbs: Sequence[Verb]) -> list[str]:
    """What stages read, but for ids of the hub; of prepared data only what is not prepared."""
    if not verbs:
        return []
    data, is_prepared = config.data, config.data.prepare is not None
    named: list[str | None] = [] if is_prepared else [config.model.path, data.records]
    files: list[str | None] = [] if is_prepared else [data.image_dir, *data.image_roots]
    if "select" in verbs:
        models, lists = _list_selected_by(config.selection)
        named, files = [*named, *models], [*files, *lists]
    if "train" in verbs and config.training.deepspeed:
        files.append(str(find_file(config.training.deepspeed, "deepspeed")))
    if "evaluate" in verbs and not is_prepared:
        for name in config.evaluation.benchmarks:
            asked = config.evaluation.data.get(name)
            if asked:
                (named if name in BY_LM_EVAL else files).append(asked.annotations)
                files.append(asked.image_dir)
    local = [path for path in named if path and not (part_split(path)[1] or may_be_hub_id(path))]
    return [*local, *(path for path in files if path)]


def _list_selected_by(selection: SelectionConfig) -> tuple[list[str | None], list[str | None]]:
    """The models that selecting reads beside the target, and the files."""
    reference = selection.reference or ReferenceConfig()
    models = [reference.model, reference.adapter]
    files = [selection.must_keep, selection.must_drop, selection.features_file]
    if selection.scorer in EMBEDDING:
        models.append(selection.options.get("model"))
    if selection.scorer == "file":
        files.append(selection.options.get("path"))
    return models, files


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
