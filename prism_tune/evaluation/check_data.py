"""Whether the data a config names are there: the pool and every benchmark's.

In: a config. Out: a line for each on the console: there, or what is missing and how to get it.
Nothing is downloaded and no model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prism_tune.config.hub_ids import may_be_hub_id
from prism_tune.config.pool_paths import part_split
from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.evaluation.data_sources import DATA_SOURCES
from prism_tune.evaluation.fetch import free_folder
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.questions import find_data, load_questions
from prism_tune.run.log import console


@dataclass(frozen=True)
class DataState:
    """One thing the config names."""

    name: str
    path: str
    is_there: bool
    detail: str


def check_data(config: Config) -> bool:
    """Print what is there and what is missing; True when nothing is missing."""
    states = find_all(config)
    for state in states:
        label = "there  " if state.is_there else "MISSING"
        line = f"{label}  {state.name} ({state.path}): {state.detail}"
        console.print(line, highlight=False, soft_wrap=True)
    return all(state.is_there for state in states)


def find_all(config: Config) -> list[DataState]:
    """Pool and benchmarks, in this order."""
    images = config.data.image_dir
    benchmarks = dict.fromkeys((*config.evaluation.benchmarks, *config.evaluation.data))
    return [
        _check_pool(config.data.records),
        *(
            [DataState("data.image_dir", images, Path(images).exists(), "the pool's images")]
            if images
            else []
        ),
        *(_check_benchmark(config, name) for name in benchmarks),
    ]


def _check_pool(records: str) -> DataState:
    if may_be_hub_id(records):
        return DataState("data.records", records, True, "a hub id: fetched when it is first read")
    is_there = part_split(records)[0].exists()
    return DataState("data.records", records, is_there, "the pool; data/README.md has its layout")


def _check_benchmark(config: Config, name: str) -> DataState:
    path = ""
    try:
        path = find_data(config, name).annotations
        if name in LANGUAGE_BENCHMARKS:
            return DataState(name, path, True, _check_language(name, path))
        loaded = load_questions(config, name)
    except UserError as error:
        return DataState(name, path, False, f"{error}{_advise(name, path)}")
    num_there = loaded.num_images - len(loaded.missing)
    counts = f"{len(loaded.listed):,} questions, {num_there:,} images"
    if loaded.missing:
        counts += f", {len(loaded.missing):,} not there, which data.policy skips"
    return DataState(name, path, True, counts)


def _check_language(name: str, path: str) -> str:
    from prism_tune.evaluation.language.tasks import find_files

    files = find_files(name, path)
    if files is None:
        return "from the hub, when it runs"
    return ", ".join(f"{split}: {len(found)} file(s)" for split, found in files.items())


def _advise(name: str, path: str) -> str:
    """The command that fetches it: into the annotations' folder, or the one a release lies in."""
    if name not in DATA_SOURCES or not path:
        return ""
    is_fetched = DATA_SOURCES[name].hub is not None
    is_inside = Path(path).suffix or not is_fetched
    folder = free_folder(name, Path(path).parent if is_inside else Path(path))
    is_elsewhere = is_fetched and str(folder) != path
    then = f", then evaluation.data.{name}.annotations={folder}" if is_elsewhere else ""
    return f"; `prism-tune data {name} --to {folder}`{then}"
