"""prism_tune as a library: open a pool, choose from it, take the subset on.

Each call runs a stage as its verb on the command line does, and leaves the same run folder; a stage
that has finished with the same inputs is not run again. `import prism_tune` has these names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError

from prism_tune.config.errors import complete_key, describe_errors
from prism_tune.config.plugins import name_plugins
from prism_tune.config.sections import Config, DataConfig, SelectionConfig
from prism_tune.config.values import expand_home
from prism_tune.data.records import Pool
from prism_tune.data.records import open_pool as open_configured
from prism_tune.errors import ConfigError, UserError
from prism_tune.features.given import as_floats, keep_array
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.log import keep_log
from prism_tune.selection.finished import Subset

_NO_MODEL = "(none)"
"""The model's path where nothing of it is read."""


def open_pool(records: str | Path, *, image_dir: str | Path | None = None, **reading: Any) -> Pool:
    """Open records to choose from.

    Args:
        records: a JSON list, JSON lines or parquet file, a folder of `datasets`, or a hub id.
        image_dir: what the image names are relative to; by default the file's own folder.
        **reading: more of the config's `data`, for example `columns`, `source` or `policy`.

    Raises:
        UserError: the records cannot be read, or some are bad and their policy is "fail".
        ConfigError: an unknown setting.
    """
    folder = None if image_dir is None else str(image_dir)
    tree = {"records": str(records), "image_dir": folder, **reading}
    try:
        return open_configured(DataConfig.model_validate(tree))
    except ValidationError as error:
        raise ConfigError(describe_errors(error, "open_pool", DataConfig)) from error


def select(
    source: Pool | Config,
    *,
    model: str | Path | Mapping[str, Any] | None = None,
    features: ArrayLike | str | Path | None = None,
    scores: ArrayLike | str | Path | None = None,
    name: str | None = None,
    force: bool = False,
    **settings: Any,
) -> Subset:
    """Score a pool, and keep what the budget allows.

    Args:
        source: a pool, or a whole config (`load_config`).
        model: a directory or hub id, or the config's `model` as a mapping. Not needed where the
            method reads features or scores of your own, or nothing.
        features: of your own, in place of the model's: a row for each record of the pool's file
            (an array, a memory map, a torch tensor, lists), or a file (`selection.features_file`).
            The words of `selection.features` say what the model reads instead.
        scores: of your own, a number for each record, or a file: the scorer `file`.
        name: of the run, below `output_dir`; a pool's by default follows from all settings.
        force: select again, and compute the evidence anew.
        **settings: what differs: keys of the config as `prism-tune select` takes them
            (`budget=0.2`, `scorer="kernel_repulsion"`, `seed=1`, `output_dir="runs"`), in full
            where two sections have one, and as deep as need be (`**{"training.records": "pool",
            "options.beta": 4.0}`). A mapping is merged with what is there, a list replaces it.

    Raises:
        UserError: as `prism-tune select`.
        ConfigError: an unknown setting, or one that does not fit.
    """
    from prism_tune.selection.select import select as run_select

    settings = {complete_key(key, Config): value for key, value in settings.items()}
    runs = source.output_dir if isinstance(source, Config) else "runs"
    given = Path(expand_home(str(settings.get("output_dir", runs)))) / "given"
    words = get_args(SelectionConfig.model_fields["features"].annotation)
    if isinstance(features, str) and features in words:
        settings["selection.features"] = features
    elif features is not None:
        settings["selection.features_file"] = _keep("features", features, source, given)
    if scores is not None:
        path = _keep("scores", scores, source, given)
        settings |= {"selection.scorer": "file", "selection.options": {"path": path}}
    if model is None and isinstance(source, Pool):
        model = None if _needs_model(_grow(settings).get("selection")) else _NO_MODEL
    config = configure(source, model=model, name=name, **settings)
    run = open_run(config)
    run_select(config, run, force=force, tune=_tune)
    return Subset(run)


def _needs_model(selection: Any) -> bool:
    """Whether a selection with these settings reads anything of it."""
    given = selection if isinstance(selection, Mapping) else {}
    reads_nothing = given.get("scorer", "prism") in ("file", "random")
    return not (reads_nothing or given.get("features_file"))


def audit_pool(source: Pool | Config, *, force: bool = False, **settings: Any) -> bool:
    """Look at every record and image; False where some have to be mended or skipped."""
    from prism_tune.audit.audit import audit as run_audit

    config = configure(source, **settings)
    return run_audit(config, open_run(config), force=force)


def train(source: Subset | Config, *, force: bool = False, **settings: Any) -> Path:
    """Tune the model on a subset, or as a config says; the checkpoint's directory."""
    from prism_tune.training.train import train as run_train

    config = configure(source.config if isinstance(source, Subset) else source, **settings)
    run = open_run(config)
    run_train(config, run, force=force)
    return run.checkpoint


def evaluate(
    source: Subset | Config, *, force: bool = False, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Answer and score the benchmarks; what is in each one's results.json, by name."""
    from prism_tune.evaluation.evaluate import evaluate as run_evaluate

    config = configure(source.config if isinstance(source, Subset) else source, **settings)
    run = open_run(config)
    run_evaluate(config, run, force=force)
    names = config.evaluation.benchmarks
    return {name: read_object(run.benchmark(name) / "results.json") for name in names}


def configure(
    source: Pool | Config,
    *,
    model: str | Path | Mapping[str, Any] | None = None,
    name: str | None = None,
    **settings: Any,
) -> Config:
    """The config of a pool or another config, with other settings.

    Args:
        source: a pool, or a whole config.
        model: in place of all that the source says of it.
        name: of the run.
        **settings: dotted keys of any depth. A mapping goes into the one that is there, key by
            key, as on the command line; anything else takes its place. Options of another scorer
            than the source's replace those of the source.

    Raises:
        ConfigError: an unknown setting, or one that does not fit.
    """
    tree: dict[str, Any] = (
        source.model_dump() if isinstance(source, Config) else {"data": source.config.model_dump()}
    )
    if model is not None:
        tree["model"] = dict(model) if isinstance(model, Mapping) else {"path": str(model)}
    given = _grow(settings)
    _forget_options(tree, given)
    tree = _merge(tree, given)
    if name is not None or "name" not in tree:
        tree["name"] = name or _name_run(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, "settings", Config)) from error


def open_run(config: Config) -> RunDir:
    """Its folder, with a log to be kept there."""
    keep_log()
    name_plugins(config.plugins)
    return RunDir(Path(config.output_dir) / config.name)


def _tune(config: Config, run: RunDir) -> None:
    """The training stage, for what a selection has to have trained first; loaded only then."""
    from prism_tune.training.train import train as run_train

    run_train(config, run)


def _keep(
    what: Literal["features", "scores"],
    numbers: ArrayLike | str | Path,
    source: Pool | Config,
    folder: Path,
) -> str:
    """The file that a selection reads: the one named, or the numbers kept below the runs."""
    if isinstance(numbers, str | Path):
        return str(numbers)
    array = as_floats(numbers, what, 2 if what == "features" else 1)
    if isinstance(source, Pool) and len(array) != (
        num_records := len(source) + len(source.skipped)
    ):
        raise UserError(
            f"{what}: {len(array):,} rows, but {source.path} has {num_records:,} records; give "
            "each of them a row, in their order, also those that are text only or skipped"
        )
    return str(keep_array(array, folder))


def _grow(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted keys as the tree of sections that a config file has."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        grown = _as_plain(value)
        for part in reversed(complete_key(key, Config).split(".")):
            grown = {part: grown}
        tree = _merge(tree, grown)
    return tree


def _merge(base: Any, top: Any) -> Any:
    """Mappings key by key; anything else of `top` takes the place of what is there."""
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    return {**base, **{key: _merge(base.get(key), value) for key, value in top.items()}}


def _forget_options(tree: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Leave out the options of a scorer that another, given with options of its own, replaces."""
    before, asked = tree.get("selection"), given.get("selection")
    if not (isinstance(before, dict) and isinstance(asked, dict) and "options" in asked):
        return
    if asked.get("scorer", before["scorer"]) != before["scorer"]:
        tree["selection"] = {key: value for key, value in before.items() if key != "options"}


def _name_run(tree: Mapping[str, Any]) -> str:
    """Pool, scorer, and a hash of all settings: others never overwrite it."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(tree["data"]["records"]).stem).lstrip("._-")
    selection = tree.get("selection")
    scorer = selection.get("scorer", "prism") if isinstance(selection, dict) else "prism"
    return f"{stem or 'pool'}-{scorer}-{fingerprint(tree)[:8]}"


def _as_plain(value: Any) -> Any:
    """A setting as a config has it: no paths, no numbers of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _as_plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [_as_plain(content) for content in value]
    return str(value) if isinstance(value, Path) else value
