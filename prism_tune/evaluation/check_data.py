"""Whether the data a config names are there: pool, model and every benchmark.

In: a config. Out: a table on the console, a line for each: there, or what is missing and how to
get it. Nothing is downloaded and no model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from prism_tune.config import Config
from prism_tune.errors import UserError
from prism_tune.evaluation.data_sources import DATA_SOURCES
from prism_tune.evaluation.language_benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.plan import find_data, load_questions
from prism_tune.log import console


@dataclass(frozen=True)
class Finding:
    """One thing the config names."""

    name: str
    path: str
    is_there: bool
    detail: str


def check_data(config: Config) -> bool:
    """Print what is there and what is missing; True when nothing is missing."""
    findings = find_all(config)
    table = Table("what", "where", "", title=f"Data of {config.name}")
    for finding in findings:
        table.add_row(
            finding.name, finding.path, ("" if finding.is_there else "MISSING: ") + finding.detail
        )
    console.print(table)
    return all(finding.is_there for finding in findings)


def find_all(config: Config) -> list[Finding]:
    """Pool, model and benchmarks, in this order."""
    benchmarks = dict.fromkeys((*config.evaluation.benchmarks, *config.evaluation.data))
    return [
        _check_path("data.records", config.data.records, "the pool; data/README.md has its layout"),
        *(
            [_check_path("data.image_dir", config.data.image_dir, "the pool's images")]
            if config.data.image_dir
            else []
        ),
        *(_check_benchmark(config, name) for name in benchmarks),
    ]


def _check_path(name: str, path: str, what: str) -> Finding:
    return Finding(name, path, Path(path).exists(), what)


def _check_benchmark(config: Config, name: str) -> Finding:
    path = ""
    try:
        path = find_data(config, name).annotations
        if name in LANGUAGE_BENCHMARKS:
            return Finding(name, path, True, _check_language(name, path))
        loaded = load_questions(config, name)
    except UserError as error:
        fetch = (
            f"; `prism-tune data {name} --to {_folder_of(path)}`" if name in DATA_SOURCES else ""
        )
        return Finding(name, path, False, f"{error}{fetch}")
    counts = f"{len(loaded.asked):,} questions, {len(loaded.image_sizes):,} images"
    return Finding(name, path, True, counts)


def _check_language(name: str, path: str) -> str:
    from prism_tune.evaluation.language_tasks import find_split_files

    if not Path(path).is_dir():
        return "from the hub, when it runs"
    files = find_split_files(name, Path(path))
    return ", ".join(f"{split}: {len(found)} file(s)" for split, found in files.items())


def _folder_of(path: str) -> str:
    return str(Path(path).parent if Path(path).suffix else path) or "FOLDER"
