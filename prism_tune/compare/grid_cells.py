"""What a grid consists of: a config with a `compare` section in, its cells out.

Selectors at every budget beside the whole pool, or rows in variants, each under every seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationError

from prism_tune.compare.cells import Budget, Cell, stages_of
from prism_tune.config.budget_words import budget_key
from prism_tune.config.errors import describe_errors
from prism_tune.config.load import load_config
from prism_tune.config.sections import NAME_PATTERN, CompareConfig, Config, SelectionConfig
from prism_tune.errors import ConfigError
from prism_tune.results.build import TABLES
from prism_tune.run.folder import RunDir

WHOLE_POOL = "whole_pool"
"""The selector's name in cells that are tuned on everything."""


def plan_cells(config: Config, run: RunDir, patterns: Sequence[str] = ("*",)) -> list[Cell]:
    """Every cell, seed by seed, so that a grid cut short has all its rows.

    Args:
        config: the grid.
        run: its folder.
        patterns: of selectors and rows; those that match none are left out.

    Raises:
        ConfigError: no `compare` section, a selector or row that cannot be read, two of one name,
            none that matches, or a metric or table that none could have.
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
    _check_what_is_printed(wanted, cells)
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
    if config.compare.rows and config.compare.metrics:
        raise ConfigError(
            f"compare.metrics: {', '.join(config.compare.metrics)}: expected none (`[]`) beside "
            "`rows`, for selectors are compared by them; `compare.tables` puts rows side by side"
        )
    return config.compare


def _refuse_repeats(wanted: CompareConfig) -> None:
    named = {"selectors": "scorer", "rows": "name", "variants": "name"}
    for key in ("selectors", "rows", "variants", "budgets", "seeds"):
        given = getattr(wanted, key)
        names = [
            item.get("name", item.get(named[key])) if isinstance(item, dict) else item
            for item in (map(budget_key, given) if key == "budgets" else given)
        ]
        if len(set(names)) < len(names):
            raise ConfigError(f"compare.{key}: two are the same (a selector can have a `name`)")


def _check_what_is_printed(wanted: CompareConfig, cells: Sequence[Cell]) -> None:
    """Before cells are paid for: what their results cannot have."""
    for kind in wanted.tables.keys() - TABLES.keys():
        raise ConfigError(f"compare.tables: no table {kind!r}; there are {', '.join(TABLES)}")
    for name in wanted.metrics:
        benchmark, _, metric = name.partition(".")
        if not metric:
            raise ConfigError(
                f"compare.metrics: {name!r}: expected <benchmark>.<metric> of results.json, for "
                "example pope.accuracy"
            )
        for cell in cells:
            if benchmark not in (asked := cell.config.evaluation.benchmarks):
                raise ConfigError(
                    f"compare.metrics: {name}: {benchmark} is not in evaluation.benchmarks of "
                    f"{cell.config.name} ({', '.join(asked) or 'none'})"
                )


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
        if not re.match(NAME_PATTERN, name):
            raise ConfigError(
                f"{where}: `name` = {name!r}: expected letters, digits and `._-`, first one of the "
                "former two: cells' folders are called by it"
            )
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
    parts = [selector, *([] if budget is None else [budget_key(budget)]), f"seed{seed}"]
    cells = run.root / "cells"
    own = {"name": "-".join(parts), "seed": seed, "output_dir": str(cells), "compare": None}
    chosen = config.model_copy(update={**update, **own})
    return Cell(selector, budget, seed, chosen, stages_of(chosen), cells / chosen.name)


def _read_rows(config: Config, wanted: CompareConfig) -> dict[str, Config]:
    """Every row in every variant, by its name."""
    rows = [_named(entry, f"compare.rows[{n}]") for n, entry in enumerate(wanted.rows)]
    variants = [_named(entry, f"compare.variants[{n}]") for n, entry in enumerate(wanted.variants)]
    tree = OmegaConf.create(config.model_dump(mode="json", exclude={"compare"}))
    found = {}
    for (template, varied), (row, changed) in product(variants, rows):
        name = template.replace("{}", row)
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
