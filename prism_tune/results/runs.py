"""A finished run as its files tell it: the one reader of run folders for tables and reports.

Reads every stage.json, selection/ (manifest.json, scores.parquet, evidence/features/), the pool,
training/log.jsonl, evaluation/<benchmark>/results.json, timings.json and tables/*.json. Labels come
from what the stages recorded when they ran. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool, open_pool
from prism_tune.errors import UserError
from prism_tune.features.shards import RecordFeatures, StoredRows, list_shards, read_shard
from prism_tune.results.records import RecordTable, read_records
from prism_tune.run.folder import RunDir, read_entries, read_object
from prism_tune.run.record import recorded_config
from prism_tune.run.stage import Stage
from prism_tune.run.timings import read_timings, sum_attempts
from prism_tune.run.written import read_log
from prism_tune.schema import BenchmarkResult

Keep = Literal["low", "middle", "high"]

_RESULT_FIELDS = {field.name for field in dataclass_fields(BenchmarkResult)}
_RESULT_REQUIRED = {"benchmark", "metrics", "num_examples", "num_missing", "profile"}


class FinishedRun:
    """A run folder, read when it is asked for; a stage that has not run is None or empty.

    Args:
        run: the folder.
        name: how tables call it; None: as the folder is called.

    Raises:
        UserError: no stage has finished there.
    """

    def __init__(self, run: RunDir, name: str | None = None) -> None:
        self.run = run
        self.root = run.root
        self.name = name or run.root.resolve().name
        self.config: Config = recorded_config(run)

    @property
    def is_untuned(self) -> bool:
        """The model as it was before instruction tuning."""
        return self.config.training.tuning == "none"

    @property
    def is_full(self) -> bool:
        """Tuned on the whole pool."""
        return not self.is_untuned and self.config.training.records == "pool"

    @property
    def is_selected(self) -> bool:
        """Tuned on a subset."""
        return not self.is_untuned and not self.is_full

    @cached_property
    def results(self) -> Mapping[str, BenchmarkResult]:
        """Benchmark -> result.

        Raises:
            UserError: a file that cannot be read.
        """
        paths = sorted(self.run.evaluation.glob("*/results.json"))
        return {result.benchmark: result for result in map(_read_result, paths)}

    @cached_property
    def manifest(self) -> Mapping[str, Any] | None:
        """What the selection says of itself; None unless it finished.

        Raises:
            UserError: it finished, and its manifest is gone or has no counts.
        """
        path = self.run.selection / "manifest.json"
        stage = Stage(self.run.selection)
        if not stage.path.exists():
            return None
        again = f"prism-tune select {stage.config_path} --force"
        if not path.exists():
            raise UserError(f"{path}: no such file; first run `{again}`")
        manifest: dict[str, Any] = read_object(path)
        missing = [key for key in ("num_pool", "num_selected") if key not in manifest]
        if missing:
            raise UserError(f"{path}: no {' and no '.join(missing)}; write it anew with `{again}`")
        return manifest

    @cached_property
    def records(self) -> RecordTable | None:
        """Score and verdict of every record; None unless the selection finished.

        Raises:
            UserError: scores.parquet cannot be read.
        """
        written = (self.run.selection / "scores.parquet").exists()
        return read_records(self.run) if written and self.manifest is not None else None

    @cached_property
    def features(self) -> RecordFeatures | None:
        """The features behind the scores; None where the scorer needs none or they are gone."""
        paths = list_shards(self.run.features)
        if self.records is None or self.records.feature_keys is None or not paths:
            return None
        values_UD = StoredRows([read_shard(path) for path in paths])
        place = pc.index_in(self.records.feature_keys, value_set=pa.array(values_UD.keys))
        row_N = place.fill_null(-1).to_numpy().astype(np.int64)
        return RecordFeatures.of_records(values_UD, row_N) if (row_N >= 0).any() else None

    @cached_property
    def left_out(self) -> dict[str, dict[str, int]]:
        """Stage -> reason -> how many records it went on without."""
        path = self.run.training / "skipped.json"
        tuned: Counter[str] = Counter()
        if not self.is_untuned and path.exists():
            tuned = Counter(item["reason"] for item in read_entries(path, "reason"))
        selected = (self.manifest or {}).get("num_skipped", {}) if self.is_selected else {}
        return {"selected": selected, "tuned": dict(sorted(tuned.items()))}

    @property
    def keep(self) -> Keep:
        """Which scores the selection kept: the config's choice, or the method's own."""
        keep: Keep = self.config.selection.keep or (self.manifest or {}).get("keep") or "low"
        return keep

    @cached_property
    def pool(self) -> Pool:
        """The records' texts and image paths; row n is row n of `records`.

        Raises:
            UserError: the pool's file is gone, or is not the one that was scored.
        """
        data = (Stage(self.run.selection).config() or self.config).data
        pool = open_pool(data)
        scored = (self.manifest or {}).get("pool_fingerprint")
        if scored is not None and pool.fingerprint != scored:
            raise UserError(
                f"{data.records}: has changed since it was scored; "
                f"run `prism-tune select {Stage(self.run.selection).config_path}` again"
            )
        return pool

    @cached_property
    def training_log(self) -> list[dict[str, Any]]:
        """The logged steps; a last line that a kill cut short is left out."""
        return read_log(self.run.training / "log.jsonl")

    @cached_property
    def timings(self) -> Sequence[Mapping[str, Any]]:
        """Every attempt of every stage."""
        return read_timings(self.run)

    @cached_property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Name -> table (title, rows, notes) that `prism-tune tables` wrote."""
        return {path.stem: read_object(path) for path in sorted(self.run.tables.glob("*.json"))}

    @property
    def pool_fingerprint(self) -> str | None:
        """The content of the pool it was selected from, or tuned on; None where not recorded."""
        if self.is_full:
            whole: str | None = self.record("training").get("inputs", {}).get("records")
            return whole
        return (self.manifest or {}).get("pool_fingerprint")

    @property
    def num_tuned(self) -> int | None:
        """The records it was tuned on; None where that is not recorded."""
        count: int | None = self.record("training").get("outputs", {}).get("num_records")
        return count

    @property
    def global_batch(self) -> int | None:
        """Records (packed: rows) of a step over all processes; None where that is not recorded."""
        size: int | None = self.record("training").get("outputs", {}).get("global_batch")
        return size

    @cached_property
    def stale(self) -> list[str]:
        """What reads something else than the stage before it has left by now."""
        other = "of another checkpoint than training/ holds"
        results = [f"evaluation/{name}: {other}" for name in self.stale_results]
        return [*self.stale_stages, *results]

    @cached_property
    def stale_stages(self) -> list[str]:
        """The same of selection and training."""
        selection, training = self.record("selection"), self.record("training")
        stale = []
        if self.is_selected:
            if damaged := Stage(self.run.selection).damaged_files():
                stale.append(f"selection: not as it left them: {', '.join(damaged)}")
            subset = selection.get("outputs", {}).get("subset_sha256")
            read = training.get("inputs", {}).get("records")
            if None not in (subset, read) and subset != read:
                stale.append("training: on another subset than selection/ holds")
        return stale

    @cached_property
    def stale_results(self) -> list[str]:
        """Benchmarks whose answers are of another checkpoint than training/ holds."""
        if self.is_untuned or not self.run.training.exists():
            return []
        own = self.record("training").get("fingerprint")
        inputs = {n: self.record(f"evaluation/{n}").get("inputs", {}) for n in self.results}
        return [name for name, read in inputs.items() if read.get("checkpoint") not in (None, own)]

    @property
    def unranked(self) -> str:
        """How many records its selector could not rank, and why; empty of none."""
        found = (self.manifest or {}).get("unranked", {}) if self.is_selected else {}
        text: str = found.get("text", "")
        return text

    def record(self, stage: str) -> Mapping[str, Any]:
        """What a stage ("evaluation/<benchmark>") recorded; empty unless it finished."""
        return Stage(self.root / stage).record() or {}

    def attempts(self, stage: str) -> list[Mapping[str, Any]]:
        """The metered attempts of a stage."""
        return [entry for entry in self.timings if entry["stage"] == stage]

    def total(self, stage: str, quantity: str = "device_seconds") -> float | None:
        """A quantity of a stage over all its attempts; None where it never finished or lacks it."""
        entries = self.attempts(stage)
        if not any(entry["finished"] for entry in entries):
            return None
        return sum_attempts(entries, quantity)


def open_runs(roots: Sequence[Path]) -> list[FinishedRun]:
    """Run folders, each under a name of its own: the folder's, or where two agree its path.

    Raises:
        UserError: a folder given twice or not there, or in which no stage has finished.
    """
    resolved = [root.resolve() for root in roots]
    for root, path in zip(roots, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UserError(f"{root}: given twice; a run counts once")
        if not root.is_dir():
            raise UserError(f"{root}: no such run folder; `prism-tune train CONFIG` makes one")
    unique = len({path.name for path in resolved}) == len(resolved)
    return [
        FinishedRun(RunDir(root), path.name if unique else str(root))
        for root, path in zip(roots, resolved, strict=True)
    ]


def _refuse_comparison(run: RunDir) -> None:
    """Raise UserError for a comparison's folder, naming the runs that are meant."""
    cells = [path.parent for path in run.root.glob("cells/*/cell.yaml")]
    if not cells:
        return
    inside = any(RunDir(cell).evaluation.is_dir() for cell in cells)
    where = f"--runs {run.root}/cells/*-seed*" if inside else f"its rows, in {run.root.parent}/"
    raise UserError(
        f"{run.root}: the folder of a comparison of {len(cells)} cells, each a run of its own: "
        f"give these, {where}"
    )


def require_evaluated(run: FinishedRun) -> None:
    """Raise UserError for a run that no table can hold, naming the command that is missing."""
    if not run.results:
        _refuse_comparison(run.run)
        raise UserError(
            f"{run.root}/evaluation/<benchmark>/results.json: none there; "
            "first run `prism-tune evaluate CONFIG`"
        )
    if run.is_selected and run.manifest is None:
        raise UserError(f"{run.run.selection}: not finished; first run `prism-tune select CONFIG`")


def _read_result(path: Path) -> BenchmarkResult:
    content = read_object(path)
    if not content.keys() >= _RESULT_REQUIRED:
        raise UserError(
            f"{path}: expected an object with {', '.join(sorted(_RESULT_REQUIRED))}; "
            "write it anew with `prism-tune evaluate CONFIG --force`"
        )
    return BenchmarkResult(**{key: v for key, v in content.items() if key in _RESULT_FIELDS})
