"""What a comparison consists of: a config goes in, one ordinary run per cell comes out.

A cell is a selector at a budget under a seed (or the whole pool under a seed), with the config that
`prism-tune select`, `train` and `evaluate` would take.

```
runs/<name>/
  cells/<selector>-<budget>-seed<n>/   a run folder, and cell.json: finished or failed
  shared/<key>/                        a run folder: features that several cells read
  comparison.md  comparison.json
```
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prism_tune.config.errors import describe_errors
from prism_tune.config.sections import CompareConfig, Config, SelectionConfig
from prism_tune.errors import ConfigError
from prism_tune.run.fingerprints import fingerprint, fingerprint_model, fingerprint_path
from prism_tune.run.folder import RunDir, read_json, write_json

Verb = Literal["select", "train", "evaluate"]
State = Literal["finished", "failed"]
Budget = float | int

WHOLE_POOL = "whole_pool"
"""The selector's name in cells that are tuned on everything."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of the comparison.

    `budget` is None for the whole pool; `inputs` stands for the config and the files it names.
    """

    selector: str
    budget: Budget | None
    seed: int
    config: Config
    verbs: tuple[Verb, ...]
    inputs: str

    @property
    def run(self) -> RunDir:
        """Its folder."""
        return RunDir(Path(self.config.output_dir) / self.config.name)

    @property
    def record(self) -> Path:
        """Where its outcome is written."""
        return self.run.root / "cell.json"

    @property
    def output(self) -> Path:
        """What its verbs print."""
        return self.run.root / "output.txt"

    def state(self) -> State | None:
        """How it ended; None when it has not, or when what it reads has changed since."""
        if not self.record.exists():
            return None
        content = read_json(self.record)
        state: State | None = content["state"] if content["inputs"] == self.inputs else None
        return state

    def error(self) -> str | None:
        """Why it failed."""
        error: str | None = read_json(self.record)["error"] if self.record.exists() else None
        return error

    def finish(self, error: str | None) -> None:
        """Write down how it ended."""
        state: State = "finished" if error is None else "failed"
        write_json(self.record, {"state": state, "error": error, "inputs": self.inputs})


def plan_cells(config: Config, run: RunDir) -> list[Cell]:
    """Every cell, seed by seed, so that a comparison cut short has all selectors in it.

    Raises:
        ConfigError: no `compare` section, a selector that cannot be read, or two of one name.
    """
    wanted = require_section(config)
    selections = dict(_read_selectors(config, wanted.selectors))
    for key, given, different in (
        ("selectors", wanted.selectors, selections),
        ("budgets", wanted.budgets, set(wanted.budgets)),
        ("seeds", wanted.seeds, set(wanted.seeds)),
    ):
        if len(different) < len(given):
            raise ConfigError(f"compare.{key}: two are the same (a selector can have a `name`)")
    if wanted.baseline not in selections:
        raise ConfigError(
            f"compare.baseline: {wanted.baseline!r} is none of compare.selectors: "
            + ", ".join(selections)
        )
    files = _fingerprint_files(config)
    cells = []
    for seed in wanted.seeds:
        for budget in wanted.budgets:
            for name, selection in selections.items():
                chosen = selection.model_copy(update={"budget": budget})
                update: dict[str, Any] = {"selection": chosen}
                cells.append(_make_cell(config, run, (name, budget, seed), update, files))
        if wanted.whole_pool:
            training = config.training.model_copy(update={"records": "pool"})
            update = {"training": training}
            cells.append(_make_cell(config, run, (WHOLE_POOL, None, seed), update, files))
    return cells


def require_section(config: Config) -> CompareConfig:
    """The config's `compare` section.

    Raises:
        ConfigError: it has none.
    """
    if config.compare is None:
        raise ConfigError(
            "compare: no such section in the config; configs/experiments/comparison.yaml has one"
        )
    return config.compare


def share_cell(cell: Cell, run: RunDir, key: str) -> Cell:
    """The selection whose features all cells with this `key` read, in a folder of its own."""
    name = key[:16]
    config = cell.config.model_copy(update={"name": name, "output_dir": str(run.root / "shared")})
    return Cell("shared features", None, cell.seed, config, ("select",), cell.inputs)


def _read_selectors(
    config: Config, entries: Sequence[str | dict[str, Any]]
) -> Iterator[tuple[str, SelectionConfig]]:
    """Each entry over the config's own selection; `options` are never another scorer's."""
    shared = config.selection.model_dump(exclude={"scorer", "options", "budget"})
    for number, entry in enumerate(entries):
        given = {"scorer": entry} if isinstance(entry, str) else dict(entry)
        name = given.pop("name", given.get("scorer"))
        where = f"compare.selectors[{number}]"
        if not isinstance(name, str) or "scorer" not in given:
            raise ConfigError(f"{where}: expected a scorer's name, or a mapping with `scorer`")
        try:
            yield name, SelectionConfig.model_validate({**shared, **given})
        except ValidationError as error:
            raise ConfigError(describe_errors(error, where, SelectionConfig)) from error


def _make_cell(
    config: Config,
    run: RunDir,
    place: tuple[str, Budget | None, int],
    update: dict[str, Any],
    files: dict[str, str],
) -> Cell:
    selector, budget, seed = place
    parts = [selector, *([] if budget is None else [f"{budget:g}"]), f"seed{seed}"]
    own = {"name": "-".join(parts), "seed": seed, "output_dir": str(run.root / "cells")}
    chosen = config.model_copy(update={**update, **own, "compare": None})
    verbs: tuple[Verb, ...] = ("select", "train", "evaluate")
    inputs = fingerprint([chosen.model_dump(mode="json"), files])
    return Cell(selector, budget, seed, chosen, verbs if budget is not None else verbs[1:], inputs)


def _fingerprint_files(config: Config) -> dict[str, str]:
    """What the paths of the config stand for now."""
    questions = {name: data.annotations for name, data in config.evaluation.data.items()}
    paths = {"records": config.data.records, **questions}
    files = {name: fingerprint_path(Path(path)) for name, path in paths.items()}
    return {**files, "model": fingerprint_model(config.model.path, config.model.revision)}
