"""What a finished cell leaves behind, read for the table.

Reads evaluation/<benchmark>/results.json, timings.json, selection/scores.parquet and manifest.json.

Shape legend: N records of the pool.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prism_tune.compare.cells import Cell
from prism_tune.errors import ConfigError
from prism_tune.run.folder import RunDir, read_json
from prism_tune.run.timings import read_timings, stage_total


@dataclass(frozen=True)
class Kept:
    """Which records of the pool a cell was tuned on; `ids` and `sources` are the pool's."""

    selected_N: NDArray[np.bool_]
    uids: NDArray[np.object_]
    ids: NDArray[np.object_]
    sources: NDArray[np.object_]

    def source_shares(self) -> dict[str, float]:
        """Each source's share of the kept records."""
        names, counts = np.unique(self.sources[self.selected_N].astype(str), return_counts=True)
        found = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
        return {name: found.get(name, 0.0) for name in sorted(set(self.sources.tolist()))}


@dataclass(frozen=True)
class Outcome:
    """Performance, its parts and costs of one cell; `kept` is None for the whole pool."""

    cell: Cell
    performance: float
    metrics: Mapping[str, float]
    select_seconds: float
    tune_seconds: float
    devices: tuple[str, ...]
    kept: Kept | None


def read_outcome(cell: Cell, metrics: Sequence[str]) -> Outcome:
    """The outcome of a finished cell.

    Raises:
        ConfigError: a metric that the results do not have.
        UserError: files are missing.
    """
    run = cell.run
    values = {name: _read_metric(run, name) for name in metrics}
    entries = [e for e in read_timings(run) if e["stage"] in ("selection", "training")]
    return Outcome(
        cell=cell,
        performance=statistics.fmean(values.values()),
        metrics=values,
        select_seconds=stage_total(run, "selection") or 0.0,
        tune_seconds=stage_total(run, "training") or 0.0,
        devices=tuple(sorted({str(entry["device"]) for entry in entries})),
        kept=_read_kept(run) if cell.budget is not None else None,
    )


def jaccard(a: Kept, b: Kept) -> float:
    """Records in both over records in either, by uid."""
    kept_a, kept_b = (set(kept.uids[kept.selected_N].tolist()) for kept in (a, b))
    return len(kept_a & kept_b) / max(len(kept_a | kept_b), 1)


def _read_metric(run: RunDir, name: str) -> float:
    benchmark, _, metric = name.partition(".")
    path = run.benchmark(benchmark) / "results.json"
    if not path.exists():
        raise ConfigError(f"compare.metrics: {name}: {benchmark} is not in evaluation.benchmarks")
    found: dict[str, float] = read_json(path)["metrics"]
    if metric not in found:
        raise ConfigError(f"compare.metrics: {name}: {benchmark} has {', '.join(found)}")
    return float(found[metric])


def _read_kept(run: RunDir) -> Kept:
    table = pq.read_table(
        run.selection / "scores.parquet", columns=["uid", "id", "source", "selected"]
    )
    uids, ids, sources = (
        np.array(table.column(name).to_pylist(), dtype=object) for name in ("uid", "id", "source")
    )
    return Kept(np.array(table.column("selected").to_pylist(), dtype=bool), uids, ids, sources)
