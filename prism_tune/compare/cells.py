"""What a grid consists of: a config with a `compare` section in, one ordinary run per cell out.

A cell is a selector at a budget, or a row in a variant, or the whole pool, under a seed: the config
that `prism-tune select`, `train` and `evaluate` would take.

```
runs/<name>/
  cells/<selector>-<budget>-seed<n>/   a run folder, and of every cell:
  cells/<cell>/cell.yaml               its config
  cells/<cell>/cell.json               finished or failed, with what it read
  cells/<cell>/output.txt              what its verbs printed
runs/<row>-seed<n>/                    the run folder of a row: several tables may have it
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from pydantic import ValidationError

from prism_tune.compare.files import look_at_images, look_at_model, look_at_path
from prism_tune.config.depends import DEPENDS, list_fields
from prism_tune.config.errors import describe_errors
from prism_tune.config.load import load_config
from prism_tune.config.plugins import describe_plugin
from prism_tune.config.presets import find_file
from prism_tune.config.references import reference_of
from prism_tune.config.sections import CompareConfig, Config, SelectionConfig
from prism_tune.errors import ConfigError
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_object, write_json

Verb = Literal["audit", "select", "train", "evaluate"]
State = Literal["finished", "failed"]
Budget = float | int

WHOLE_POOL = "whole_pool"
"""The selector's name in cells that are tuned on everything."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a grid.

    Attributes:
        selector: whose cells under several seeds belong together: a selector's or a row's name.
        budget: None for a row and for the whole pool.
        config: what its verbs take.
        verbs: these, in order.
        folder: where its config, its outcome and its output are kept.
    """

    selector: str
    budget: Budget | None
    seed: int
    config: Config
    verbs: tuple[Verb, ...]
    folder: Path

    @property
    def run(self) -> RunDir:
        """Its run folder."""
        return RunDir(Path(self.config.output_dir) / self.config.name)

    @property
    def output(self) -> Path:
        """What its verbs print."""
        return self.folder / "output.txt"

    @property
    def _record(self) -> Path:
        return self.folder / "cell.json"

    def state(self) -> State | None:
        """How it ended; None when it has not, or when what it reads has changed since."""
        if not self._record.exists() or self.changed():
            return None
        state: State = read_object(self._record, "state")["state"]
        return state

    def changed(self) -> list[str]:
        """Which of its results would be others now than when it was last run."""
        before = read_object(self._record, "inputs")["inputs"] if self._record.exists() else None
        return [name for name, key in self._inputs().items() if before and before.get(name) != key]

    def error(self) -> str | None:
        """Why it failed."""
        error: str | None = (
            read_object(self._record, "error")["error"] if self._record.exists() else None
        )
        return error

    def finish(self, error: str | None) -> None:
        """Write down how it ended."""
        state: State = "finished" if error is None else "failed"
        write_json(self._record, {"state": state, "error": error, "inputs": self._inputs()})

    def _inputs(self) -> dict[str, str]:
        """What each of its results depends on: config fields, and the files that some stand for."""
        values = list_fields(self.config)
        model, data = self.config.model, self.config.data
        values["model.path"] = [model.path, look_at_model(model.path, model.revision)]
        values["data.image_dir"] = [data.image_dir, look_at_images(data.model_dump_json())]
        own = [f"selection.{name}" for name in ("must_keep", "must_drop", "features_file")]
        for name in ("data.records", *own):
            values[name] = [values[name], values[name] and look_at_path(values[name])]
        if (reference := reference_of(self.config.selection)) is not None:
            read = [(reference.model, reference.revision), (reference.adapter, None)]
            looks = [path and look_at_model(path, revision) for path, revision in read]
            values["selection.reference"] = [reference.model_dump(mode="json"), looks]
        scorer = self.config.selection.scorer
        if plugged := describe_plugin("SCORERS", scorer):
            values["selection.scorer"] = [scorer, plugged]
        deepspeed = self.config.training.deepspeed
        found = deepspeed and str(find_file(deepspeed, "deepspeed"))
        values["training.deepspeed"] = [deepspeed, found and look_at_path(found)]
        asked = self.config.evaluation.data
        names = [n for n in self.config.evaluation.benchmarks if n in asked]
        looks = [look_at_path(asked[name].annotations) for name in names]
        code = [plugged for n in names if (plugged := describe_plugin("BENCHMARKS", n))]
        values["evaluation.data"] = [values["evaluation.data"], *looks, *code]
        return {
            artifact: fingerprint({n: v for n, v in values.items() if artifact in DEPENDS[n]})
            for artifact in ("subset", "model", "answers")
        }


def plan_cells(config: Config, run: RunDir, patterns: Sequence[str] = ("*",)) -> list[Cell]:
    """Every cell, seed by seed, so that a grid cut short has all its rows.

    Args:
        config: the grid.
        run: its folder.
        patterns: of selectors and rows; those that match none are left out.

    Raises:
        ConfigError: no `compare` section, a selector or row that cannot be read, two of one name,
            or none that matches.
    """
    wanted = require_section(config)
    _refuse_repeats(wanted)
    rows = _read_rows(config, wanted)
    selections = _read_selections(config, wanted)
    if selections and wanted.baseline not in selections:
        raise ConfigError(
            f"compare.baseline: {wanted.baseline!r} is none of compare.selectors: "
            + ", ".join(selections)
        )
    cells = []
    for seed in wanted.seeds:
        for place, chosen in _budgeted(config, wanted, selections):
            cells.append(_selector_cell(config, run, place, chosen, seed))
        cells += [_row_cell(row, run, name, seed) for name, row in rows.items()]
    matching = [c for c in cells if any(fnmatch(c.selector, pattern) for pattern in patterns)]
    if not matching:
        raise ConfigError(f"{config.name}: no row is called {' or '.join(patterns)}")
    return matching


def plan_before(config: Config, run: RunDir, cells: Sequence[Cell]) -> list[Cell]:
    """The trainings that these cells start from, each a cell that is only tuned.

    Raises:
        ConfigError: a config of `compare.before` that cannot be read.
    """
    started = {Path(cell.config.model.path) for cell in cells}
    found = []
    for path in require_section(config).before:
        before = load_config(path)
        folder = run.root / "cells" / before.name
        cell = Cell(before.name, None, before.seed, before, ("audit", "train"), folder)
        if cell.run.checkpoint in started:
            found.append(cell)
    return found


def require_section(config: Config) -> CompareConfig:
    """The config's `compare` section.

    Raises:
        ConfigError: it has none, or it lacks what it needs.
    """
    if config.compare is None:
        raise ConfigError("compare: no such section; preset:comparison has one")
    if bool(config.compare.selectors) == bool(config.compare.rows):
        raise ConfigError("compare: expected either `selectors` or `rows`")
    if config.compare.selectors and not config.compare.metrics:
        raise ConfigError(
            "compare.metrics: expected what selectors are compared by, <benchmark>.<metric> of "
            "results.json"
        )
    return config.compare


def stages_of(config: Config) -> tuple[Verb, ...]:
    """The verbs that make a run of a config, in order."""
    tunes = config.training.tuning != "none"
    stages: dict[Verb, bool] = {
        "select": tunes and config.training.records == "subset",
        "train": tunes,
        "evaluate": bool(config.evaluation.benchmarks),
    }
    return tuple(verb for verb, is_due in stages.items() if is_due)


def _refuse_repeats(wanted: CompareConfig) -> None:
    named = {"selectors": "scorer", "rows": "name", "variants": "name"}
    for key in ("selectors", "rows", "variants", "budgets", "seeds"):
        given = getattr(wanted, key)
        names = [
            item.get("name", item.get(named[key])) if isinstance(item, dict) else item
            for item in given
        ]
        if len(set(names)) < len(names):
            raise ConfigError(f"compare.{key}: two are the same (a selector can have a `name`)")


def _read_selections(config: Config, wanted: CompareConfig) -> dict[str, SelectionConfig]:
    """Each selector over the config's own selection; `options` are never another scorer's."""
    shared = config.selection.model_dump(exclude={"scorer", "options", "budget"})
    found = {}
    for number, entry in enumerate(wanted.selectors):
        given = {"scorer": entry} if isinstance(entry, str) else dict(entry)
        name = given.pop("name", given.get("scorer"))
        where = f"compare.selectors[{number}]"
        if not isinstance(name, str) or "scorer" not in given:
            raise ConfigError(f"{where}: expected a scorer's name, or a mapping with `scorer`")
        try:
            found[name] = SelectionConfig.model_validate({**shared, **given})
        except ValidationError as error:
            raise ConfigError(describe_errors(error, where, SelectionConfig)) from error
    return found


def _budgeted(
    config: Config, wanted: CompareConfig, selections: dict[str, SelectionConfig]
) -> Iterator[tuple[tuple[str, Budget | None], dict[str, Any]]]:
    """The whole pool, which takes longest, then selectors at every budget.

    Yields (name, budget), and what differs from the config.
    """
    if not selections:
        return
    if wanted.whole_pool:
        training = config.training.model_copy(update={"records": "pool"})
        yield (WHOLE_POOL, None), {"training": training}
    for budget, (name, selection) in product(wanted.budgets, selections.items()):
        yield (name, budget), {"selection": selection.model_copy(update={"budget": budget})}


def _selector_cell(
    config: Config,
    run: RunDir,
    place: tuple[str, Budget | None],
    update: dict[str, Any],
    seed: int,
) -> Cell:
    selector, budget = place
    parts = [selector, *([] if budget is None else [f"{budget:g}"]), f"seed{seed}"]
    cells = run.root / "cells"
    own = {"name": "-".join(parts), "seed": seed, "output_dir": str(cells), "compare": None}
    chosen = config.model_copy(update={**update, **own})
    return Cell(selector, budget, seed, chosen, stages_of(chosen), cells / chosen.name)


def _read_rows(config: Config, wanted: CompareConfig) -> dict[str, Config]:
    """Every row in every variant, by its name."""
    rows = [_named(entry, f"compare.rows[{n}]") for n, entry in enumerate(wanted.rows)]
    variants = [_named(entry, f"compare.variants[{n}]") for n, entry in enumerate(wanted.variants)]
    found = {}
    for (template, varied), (row, changed) in product(variants, rows):
        name = template.replace("{}", row)
        tree = config.model_dump(mode="json", exclude={"compare"})
        merged = OmegaConf.to_container(OmegaConf.merge(tree, varied, changed, {"name": name}))
        try:
            found[name] = Config.model_validate(merged)
        except ValidationError as error:
            where = f"row {name} of compare.rows"
            raise ConfigError(describe_errors(error, where, Config)) from error
    if len(found) < len(rows) * len(variants):
        raise ConfigError("compare.variants: a name needs `{}` for the row's where there are more")
    return found


def _named(entry: str | dict[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{where}: expected a name, or a mapping with `name`")
    return name, given


def _row_cell(row: Config, run: RunDir, name: str, seed: int) -> Cell:
    config = row.model_copy(update={"name": f"{name}-seed{seed}", "seed": seed})
    return Cell(name, None, seed, config, stages_of(config), run.root / "cells" / config.name)
