"""Run folders in, `TableRun`s out, and the table's rows: runs that differ only in their seed.

Reads config.yaml, evaluation/<benchmark>/results.json, selection/manifest.json, timings.json and
training/stage.json. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from prism_tune.config.load import load_config
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.stage import Stage
from prism_tune.run.timings import read_timings
from prism_tune.schema import BenchmarkResult


@dataclass(frozen=True)
class TableRun:
    """What a table needs of one run.

    `manifest` is None where the run did not select (untuned, or tuned on the whole pool);
    `num_tuned` is the number of records it was tuned on, None where that is not recorded.
    """

    name: str
    root: Path
    config: Config
    results: Mapping[str, BenchmarkResult]
    manifest: Mapping[str, Any] | None
    timings: tuple[Mapping[str, Any], ...]
    num_tuned: int | None

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


def load_runs(roots: Sequence[Path]) -> list[TableRun]:
    """Read run folders.

    Raises:
        UserError: a folder given twice, missing or unreadable files (the message names the file
            and the command that makes it).
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


def _load_run(root: Path, name: str) -> TableRun:
    run = RunDir(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such run folder; `prism-tune train CONFIG` makes one")
    if not run.config.exists():
        raise UserError(
            f"{run.config}: no such file, so {root} is not a run folder; "
            "`prism-tune train CONFIG` makes one"
        )
    config = load_config(run.config)
    needs_manifest = config.training.tuning != "none" and config.training.records == "subset"
    return TableRun(
        name=name,
        root=root,
        config=config,
        results=_load_results(run),
        manifest=_load_manifest(run) if needs_manifest else None,
        timings=tuple(read_timings(run)),
        num_tuned=_num_tuned(run),
    )


def _load_results(run: RunDir) -> dict[str, BenchmarkResult]:
    paths = sorted((run.root / "evaluation").glob("*/results.json"))
    if not paths:
        raise UserError(
            f"{run.root}/evaluation/<benchmark>/results.json: none there; "
            f"first run `prism-tune evaluate {run.config}`"
        )
    results = [_load_result(path, run) for path in paths]
    return {result.benchmark: result for result in results}


def _load_result(path: Path, run: RunDir) -> BenchmarkResult:
    content = read_json(path)
    known = {field.name for field in dataclass_fields(BenchmarkResult)}
    required = {"benchmark", "metrics", "num_examples", "num_missing", "profile"}
    if not isinstance(content, dict) or not required <= content.keys():
        raise UserError(
            f"{path}: expected an object with {', '.join(sorted(required))}; "
            f"write it anew with `prism-tune evaluate {run.config} --force`"
        )
    return BenchmarkResult(**{key: value for key, value in content.items() if key in known})


def _load_manifest(run: RunDir) -> Mapping[str, Any]:
    path = run.selection / "manifest.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; first run `prism-tune select {run.config}`")
    manifest: dict[str, Any] = read_json(path)
    missing = [key for key in ("num_pool", "num_selected") if key not in manifest]
    if missing:
        raise UserError(
            f"{path}: no {' and no '.join(missing)}; "
            f"write it anew with `prism-tune select {run.config} --force`"
        )
    return manifest


def _num_tuned(run: RunDir) -> int | None:
    stage = Stage(run.training)
    if not stage.path.exists():
        return None
    count: int | None = read_json(stage.path).get("outputs", {}).get("num_records")
    return count
