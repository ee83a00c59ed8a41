"""A finished run as its files tell it: the one reader of run folders for tables and reports.

Reads every stage.json, selection/manifest.json, evaluation/<benchmark>/results.json, timings.json
and tables/*.json. Labels come from what the stages recorded when they ran. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from functools import cached_property
from pathlib import Path
from typing import Any

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.record import recorded_config
from prism_tune.run.stage import Stage
from prism_tune.run.timings import read_timings, sum_attempts
from prism_tune.schema import BenchmarkResult

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
        manifest: dict[str, Any] = read_json(path)
        missing = [key for key in ("num_pool", "num_selected") if key not in manifest]
        if missing:
            raise UserError(f"{path}: no {' and no '.join(missing)}; write it anew with `{again}`")
        return manifest

    @cached_property
    def timings(self) -> Sequence[Mapping[str, Any]]:
        """Every attempt of every stage."""
        return read_timings(self.run)

    @cached_property
    def tables(self) -> dict[str, dict[str, Any]]:
        """Name -> table (title, rows, notes) that `prism-tune tables` wrote."""
        return {path.stem: read_json(path) for path in sorted(self.run.tables.glob("*.json"))}

    @property
    def num_tuned(self) -> int | None:
        """The records it was tuned on; None where that is not recorded."""
        count: int | None = self.record("training").get("outputs", {}).get("num_records")
        return count

    def record(self, stage: str) -> Mapping[str, Any]:
        """What a stage ("evaluation/<benchmark>") recorded; empty unless it finished."""
        path = Stage(self.root / stage).path
        record: dict[str, Any] = read_json(path) if path.exists() else {}
        return record

    def attempts(self, stage: str) -> list[Mapping[str, Any]]:
        """The metered attempts of a stage."""
        return [entry for entry in self.timings if entry["stage"] == stage]

    def total(self, stage: str, quantity: str = "device_seconds") -> float | None:
        """A quantity of a stage over all its attempts; None where it never finished or lacks it."""
        entries = self.attempts(stage)
        if not any(entry["finished"] for entry in entries):
            return None
        return sum_attempts(entries, quantity)


def load_runs(roots: Sequence[Path]) -> list[FinishedRun]:
    """Evaluated runs, for a table.

    Raises:
        UserError: a folder given twice or not there, no results, or files that cannot be read (the
            message names the file and the command that makes it).
    """
    resolved = [root.resolve() for root in roots]
    for root, path in zip(roots, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UserError(f"{root}: given twice with --runs; a run counts once")
    names = [path.name for path in resolved]
    unique = len(set(names)) == len(names)
    return [
        _load_run(root, path.name if unique else str(root))
        for root, path in zip(roots, resolved, strict=True)
    ]


def _load_run(root: Path, name: str) -> FinishedRun:
    if not root.is_dir():
        raise UserError(f"{root}: no such run folder; `prism-tune train CONFIG` makes one")
    run = FinishedRun(RunDir(root), name)
    if not run.results:
        raise UserError(
            f"{root}/evaluation/<benchmark>/results.json: none there; "
            "first run `prism-tune evaluate CONFIG`"
        )
    if run.is_selected and run.manifest is None:
        raise UserError(f"{run.run.selection}: not finished; first run `prism-tune select CONFIG`")
    return run


def _read_result(path: Path) -> BenchmarkResult:
    content = read_json(path)
    if not isinstance(content, dict) or not content.keys() >= _RESULT_REQUIRED:
        raise UserError(
            f"{path}: expected an object with {', '.join(sorted(_RESULT_REQUIRED))}; "
            "write it anew with `prism-tune evaluate CONFIG --force`"
        )
    return BenchmarkResult(**{key: v for key, v in content.items() if key in _RESULT_FIELDS})
