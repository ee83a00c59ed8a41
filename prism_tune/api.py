"""prism_tune as a library: open a pool, choose from it, take the subset on.

Each call runs a stage as its verb on the command line does, and leaves the same run folder; a stage
that has finished with the same inputs is not run again. `import prism_tune` has these names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from prism_tune.config.errors import complete_key, describe_errors
from prism_tune.config.sections import Config, DataConfig, ExportLayout, SelectionConfig
from prism_tune.data.records import Pool
from prism_tune.data.records import open_pool as open_configured
from prism_tune.errors import ConfigError
from prism_tune.features.given import as_floats, keep_array
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.log import keep_log
from prism_tune.run.stage import Stage
from prism_tune.run.subset_file import subset_data
from prism_tune.schema import Record
from prism_tune.selection.export.layouts import export_pool, write_own
from prism_tune.selection.export.tables import build_dataset

if TYPE_CHECKING:
    from datasets import Dataset


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
        **settings: what differs from the defaults: keys of the config as `prism-tune select` takes
            them (`budget=0.2`, `scorer="kernel_repulsion"`, `seed=1`, `output_dir="runs"`), in
            full where two sections have one (`**{"training.records": "pool"}`).

    Raises:
        UserError: as `prism-tune select`.
        ConfigError: an unknown setting, or one that does not fit.
    """
    from prism_tune.selection.select import select as run_select

    runs = source.output_dir if isinstance(source, Config) else "runs"
    folder = Path(settings.get("output_dir", runs)) / "given"
    if features is not None:
        settings |= _give_features(features, folder)
    if scores is not None:
        path = _give("scores", scores, folder, 1)
        settings |= {"scorer": "file", "options": {"path": path}}
    if model is None and isinstance(source, Pool):
        model = _NO_MODEL if settings.get("scorer", "prism") in ("file", "random") else model
        model = _NO_MODEL if "features_file" in settings else model
    config = configure(source, model=model, name=name, **settings)
    run = open_run(config)
    run_select(config, run, force=force)
    return Subset(run)


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
    return {name: read_json(run.benchmark(name) / "results.json") for name in names}


class Subset:
    """What a selection kept, and the verdict on every record of the pool.

    Attributes:
        run: the run folder.
        config: what the selection ran with.
        pool: the kept records, as a pool of their own.
    """

    def __init__(self, run: RunDir) -> None:
        stage = Stage(run.selection)
        stage.require("select")
        config = stage.config()
        assert config is not None
        self.run, self.config = run, config
        self.pool: Pool = open_configured(subset_data(config.data, run))
        self.manifest: dict[str, Any] = read_json(run.selection / "manifest.json")
        self.table = pq.read_table(run.selection / "scores.parquet")

    def __repr__(self) -> str:
        num_pool = self.table.num_rows
        return f"Subset({len(self)} of {num_pool} records, {self.config.selection.scorer})"

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> Record:
        """A kept record, parsed now."""
        return self.pool[index]

    def __iter__(self) -> Iterator[Record]:
        return (self.pool[index] for index in range(len(self)))

    @property
    def ids(self) -> list[str]:
        """Of the kept records, in their order; ids may repeat in a pool."""
        return self.pool.ids

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """Of every record of the pool, in its order; NaN where one is not ranked."""
        return self.table.column("score").to_numpy().astype(np.float64)

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Where the kept records stand in the pool."""
        return np.flatnonzero(self.table.column("selected").to_numpy())

    @property
    def reasons(self) -> list[str]:
        """Of every record of the pool: selected, below_cut, text_only, or why it was skipped."""
        reasons: list[str] = self.table.column("reason").to_pylist()
        return reasons

    def save(self, path: str | Path, layout: ExportLayout | None = None) -> None:
        """Write the kept records.

        Args:
            path: a file; of `trl` a new folder.
            layout: a trainer's (docs/data.md); by default the records as they stand in the pool.

        Raises:
            UserError: a name that does not fit the format, or what `export_pool` raises.
        """
        if layout is None:
            write_own(self.pool, Path(path))
        else:
            export_pool(self.pool, layout, Path(path))

    def to_dataset(self) -> Dataset:
        """The kept records as `datasets` has them; images are decoded when they are read.

        The columns are those of the layout `trl`: `SFTTrainer(train_dataset=subset.to_dataset())`.
        """
        return build_dataset(self.pool)

    def push_to_hub(self, repository: str, *, private: bool = False) -> None:
        """Share the kept records' hashes and ids, with a dataset card; no text and no images.

        Raises:
            UserError: no token, or the hub refuses.
        """
        from prism_tune.selection.export.hub import push_subset
        from prism_tune.selection.shared_subset import export_subset

        shared = self.run.exports / "shared" / f"{self.run.root.name}.parquet"
        export_subset(self.run, shared)
        push_subset(self.run, shared, repository, private=private)


def configure(
    source: Pool | Config,
    *,
    model: str | Path | Mapping[str, Any] | None = None,
    name: str | None = None,
    **settings: Any,
) -> Config:
    """The config of a pool or another config, with other settings.

    Raises:
        ConfigError: an unknown setting, or one that does not fit.
    """
    tree: dict[str, Any] = (
        source.model_dump() if isinstance(source, Config) else {"data": source.config.model_dump()}
    )
    if model is not None:
        tree["model"] = dict(model) if isinstance(model, Mapping) else {"path": str(model)}
    for key, value in settings.items():
        section, _, field = complete_key(key, Config).rpartition(".")
        place = tree if not section else {**(tree.get(section) or {})}
        place[field] = _as_plain(value)
        if section:
            tree[section] = place
    if name is not None or "name" not in tree:
        tree["name"] = name or _name_run(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, "settings", Config)) from error


def open_run(config: Config) -> RunDir:
    """Its folder, with a log to be kept there."""
    keep_log()
    return RunDir(Path(config.output_dir) / config.name)


def _give_features(features: ArrayLike | str | Path, folder: Path) -> dict[str, Any]:
    words = get_args(SelectionConfig.model_fields["features"].annotation)
    if isinstance(features, str) and features in words:
        return {"selection.features": features}
    return {"features_file": _give("features", features, folder, 2)}


def _give(what: str, given: ArrayLike | str | Path, folder: Path, num_dimensions: int) -> str:
    """The file that a selection reads: the one given, or what is given kept below the runs."""
    if isinstance(given, str | Path):
        return str(given)
    return str(keep_array(as_floats(given, what, num_dimensions), folder))


def _name_run(tree: Mapping[str, Any]) -> str:
    """Pool, scorer, and a hash of all settings: others never overwrite it."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(tree["data"]["records"]).stem).lstrip("._-")
    scorer = tree.get("selection", {}).get("scorer", "prism")
    return f"{stem or 'pool'}-{scorer}-{fingerprint(tree)[:8]}"


def _as_plain(value: Any) -> Any:
    """A setting as a config has it: no paths, no numbers of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value
