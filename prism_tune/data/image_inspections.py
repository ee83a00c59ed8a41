"""Inspections of many images (a pool's, a benchmark's): in parallel, each file decoded once.

A folder and names go in; the findings of every image come out. What was inspected before is kept in
the cache folder for every run on the same images, as long as size and modification time are equal.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from prism_tune.data.convert import cache_root
from prism_tune.data.image_inspection import Finding, Inspection, inspect_image, read_state
from prism_tune.data.policy import REASONS
from prism_tune.data.records import Pool
from prism_tune.run.fingerprints import fingerprint
from prism_tune.run.folder import write_atomic

_FEWEST_FOR_PROCESSES = 512  # below, starting them takes longer than the work
_NAMES_PER_TASK = 64
_NAMES_PER_SAVE = 20_000
_VERSION = 1
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("reasons", pa.list_(pa.string())),
        ("details", pa.list_(pa.string())),
    ]
)


def inspect_images(
    image_dir: Path, names: Sequence[str], *, num_workers: int
) -> dict[str, tuple[Finding, ...]]:
    """Findings of every named image that has any.

    Args:
        image_dir: what the names are relative to.
        names: each once.
        num_workers: 0 works in this process; otherwise one process per core is started where
            there is much to do.
    """
    cache = _cache_file(image_dir)
    known = _read_cache(cache)
    current = {name: known[name] for name in names if _is_current(image_dir, name, known)}
    todo = [name for name in names if name not in current]
    for part in _inspect_in_parts(image_dir, todo, num_workers):
        known |= {inspection.name: inspection for inspection in part}
        current |= {inspection.name: inspection for inspection in part}
        _write_cache(cache, known)
    return {name: seen.findings for name, seen in current.items() if seen.findings}


def digest_states(pool: Pool) -> str:
    """Stands for the size and modification time of every image file."""
    names = pool.unique_images()
    return fingerprint([[name, read_state(pool.image_dir, name)] for name in names])


def _inspect_in_parts(
    image_dir: Path, names: Sequence[str], num_workers: int
) -> Iterator[list[Inspection]]:
    """Inspections in order, in parts: what a kill can lose."""
    inspect = partial(inspect_image, image_dir)
    parts = [names[i : i + _NAMES_PER_SAVE] for i in range(0, len(names), _NAMES_PER_SAVE)]
    progress = Progress(
        *Progress.get_default_columns(), console=Console(stderr=True), disable=not names
    )
    with progress:
        task = progress.add_task("images", total=len(names))
        if num_workers == 0 or len(names) < _FEWEST_FOR_PROCESSES:
            for part in parts:
                yield [_advance(progress, task, inspect(name)) for name in part]
            return
        # Spawned, not forked: this process may run threads, of torch or of a process group.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(_num_cores(), mp_context=context) as processes:
            for part in parts:
                found = processes.map(inspect, part, chunksize=_NAMES_PER_TASK)
                yield [_advance(progress, task, inspection) for inspection in found]


def _advance(progress: Progress, task: object, inspection: Inspection) -> Inspection:
    progress.advance(task)  # type: ignore[arg-type]
    return inspection


def _num_cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1


def _is_current(image_dir: Path, name: str, known: dict[str, Inspection]) -> bool:
    if name not in known or known[name].state is None:
        return False
    return known[name].state == read_state(image_dir, name)


def _cache_file(image_dir: Path) -> Path:
    key = fingerprint([_VERSION, str(image_dir.resolve())])
    return cache_root() / f"images-{key[:16]}.parquet"


def _read_cache(path: Path) -> dict[str, Inspection]:
    if not path.exists():
        return {}
    rows = pq.read_table(path, schema=_SCHEMA).to_pylist()
    return {
        row["name"]: Inspection(
            row["name"],
            (row["bytes"], row["mtime_ns"]),
            tuple(
                (reason, detail)
                for reason, detail in zip(row["reasons"], row["details"], strict=True)
                if reason in REASONS
            ),
        )
        for row in rows
    }


def _write_cache(path: Path, known: dict[str, Inspection]) -> None:
    rows = [
        {
            "name": seen.name,
            "bytes": seen.state[0],
            "mtime_ns": seen.state[1],
            "reasons": [reason for reason, _ in seen.findings],
            "details": [detail for _, detail in seen.findings],
        }
        for seen in known.values()
        if seen.state is not None
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
    write_atomic(path, sink.getvalue().to_pybytes())
