"""A grid by its name or path, and the running of it: what compare, plan and run share."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prism_tune.cli.options import end_with_errors

if TYPE_CHECKING:
    from prism_tune.compare.launch import Launcher
    from prism_tune.config.sections import Config
    from prism_tune.run.folder import RunDir

GRIDS = Path("configs/experiments/tables")


def run_grid(
    config: Config,
    run: RunDir,
    launcher: Launcher,
    *,
    command: str,
    rows: Sequence[str] = ("*",),
    only_table: bool = False,
) -> bool:
    """The grid of a config; whether no run of it has failed."""
    from prism_tune.compare.run_grid import compare as run_compare
    from prism_tune.run.log import open_log

    if not only_table:
        open_log(run.log)
    return run_compare(
        config,
        run,
        launcher,
        check=check_configs,
        command=command,
        rows=rows,
        only_table=only_table,
    )


def check_configs(paths: Sequence[str]) -> NoReturn:
    """Refuse configs that their selection or training would refuse, before any is begun."""
    from prism_tune.config.load import load_config

    end_with_errors(lambda: check_all(map(load_config, paths)))
    sys.exit(0)


def check_given(given: Sequence[str]) -> NoReturn:
    """Likewise of one config: its path, then overrides."""
    from prism_tune.config.load import load_config

    path, *overrides = given
    end_with_errors(lambda: check_all([load_config(path, overrides)]))
    sys.exit(0)


def check_all(configs: Iterable[Config]) -> None:
    """Raise what the selection or the training of one of them would refuse."""
    from prism_tune.compare.cells import stages_of
    from prism_tune.selection.inputs import resolve_selection
    from prism_tune.training.early import check_training

    for config in configs:
        if "select" in stages_of(config):
            resolve_selection(config)
        check_training(config)


def find_grid(name: str) -> Path:
    """The config of a table by its name, or any config by its path or `preset:NAME`.

    Raises:
        ConfigError: neither.
    """
    from prism_tune.config.presets import PREFIX, find_file, list_presets
    from prism_tune.errors import ConfigError

    if name.startswith(PREFIX) or Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    path = find_file(GRIDS / f"{name}.yaml", "experiments")
    if not path.exists():
        shipped = [preset for preset in list_presets("experiments") if preset.startswith("tables/")]
        known = ", ".join(Path(preset).name for preset in shipped)
        raise ConfigError(
            f"no table {name!r}; there are {known}, or give the path of a config or preset:NAME"
        )
    return path
