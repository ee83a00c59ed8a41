"""Where a run's numbers come from: config, code, data, subset and checkpoint, stage by stage.

Reads the run's `stage.json` files, results and timings. Every stage records what it read: the
training the SHA-256 of its subset, the evaluation the fingerprint of its training. So a stage that
was run again without those behind it shows, and is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_tune.results.runs import TableRun
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.stage import Stage

Record = Mapping[str, Any]
_NOT_RECORDED = "not recorded"


def describe_run(run: TableRun) -> dict[str, Any]:
    """Folder, config, and where subset and checkpoint come from."""
    folder = RunDir(run.root)
    described: dict[str, Any] = {
        "folder": str(run.root),
        "config": str(folder.config),
        "config_sha256": fingerprint_file(folder.config),
        "seed": run.config.seed,
        "model": {"path": run.config.model.path, "revision": run.config.model.revision},
    }
    if run.is_selected:
        described["selection"] = _describe_selection(run, folder)
    if not run.is_untuned:
        described["training"] = _describe_training(folder)
    described["stale"] = find_stale(run) or "nothing"
    return described


def describe_results(run: TableRun, benchmark: str) -> dict[str, Any] | str:
    """The file behind a score, its data and protocol, and the code that made it."""
    result = run.results.get(benchmark)
    if result is None:
        return "not evaluated"
    folder = RunDir(run.root).benchmark(benchmark)
    provenance = dict(result.provenance)
    return {
        "file": str(folder / "results.json"),
        "profile": result.profile,
        "num_questions": result.num_examples,
        "num_missing": result.num_missing,
        "data_fingerprint": provenance.get("data", _NOT_RECORDED),
        "checkpoint_fingerprint": provenance.get("checkpoint", _NOT_RECORDED),
        "judge": provenance.get("judge"),
        **_describe_code(_read_stage(folder)),
    }


def describe_times(run: TableRun, stage: str) -> list[dict[str, Any]]:
    """The metered attempts of a stage."""
    return [dict(entry) for entry in run.timings if entry["stage"] == stage]


def find_stale(run: TableRun) -> list[str]:
    """Stages that read something else than what the stage before them has left by now."""
    folder = RunDir(run.root)
    selection, training = _read_stage(folder.selection), _read_stage(folder.training)
    stale = []
    if run.is_selected:
        subset = selection.get("outputs", {}).get("subset_sha256")
        read = training.get("inputs", {}).get("records")
        if None not in (subset, read) and subset != read:
            stale.append("training: on another subset than selection/ holds")
    if not run.is_untuned and "fingerprint" in training:
        for name in run.results:
            read = _read_stage(folder.benchmark(name)).get("inputs", {}).get("checkpoint")
            if read is not None and read != training["fingerprint"]:
                stale.append(f"evaluation/{name}: of another checkpoint than training/ holds")
    return stale


def _describe_selection(run: TableRun, folder: RunDir) -> dict[str, Any]:
    record = _read_stage(folder.selection)
    manifest = run.manifest or {}
    recorded = manifest.get("subset_sha256", _NOT_RECORDED)
    return {
        "pool": run.config.data.records,
        "pool_fingerprint": manifest.get("pool_fingerprint", _NOT_RECORDED),
        "subset": str(folder.subset),
        "subset_sha256": recorded,
        "subset_as_recorded": _matches(folder.subset, recorded),
        **_describe_code(record),
    }


def _describe_training(folder: RunDir) -> dict[str, Any]:
    record = _read_stage(folder.training)
    inputs = record.get("inputs", {})
    return {
        "checkpoint": str(folder.checkpoint),
        "fingerprint": record.get("fingerprint", _NOT_RECORDED),
        "records_fingerprint": inputs.get("records", _NOT_RECORDED),
        "model_fingerprint": inputs.get("model weights", _NOT_RECORDED),
        **_describe_code(record),
    }


def _describe_code(record: Record) -> dict[str, Any]:
    software = record.get("software", {})
    return {
        "git_commit": software.get("git_commit") or _NOT_RECORDED,
        "packages": software.get("packages", _NOT_RECORDED),
    }


def _read_stage(directory: Path) -> Record:
    stage = Stage(directory)
    record: Record = read_json(stage.path) if stage.path.exists() else {}
    return record


def _matches(path: Path, sha256: str) -> bool:
    return path.exists() and fingerprint_file(path) == sha256
