"""Fetching a benchmark's data from the hub, and saying what has to be fetched by hand.

In: a benchmark's name and a folder. Out: parquet files of the hub's schema in it, `source.json`
with what they are of and its revision, and on the console what only a person can fetch.
"""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_tune.errors import UserError, first_line
from prism_tune.evaluation.data_sources import DATA_SOURCES, DataSource, HubData
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import read_object, remove_left_over, write_json

logger = logging.getLogger(__name__)

SOURCE_NAME = "source.json"


def fetch_benchmark(name: str, folder: Path) -> None:
    """Fetch what the hub has of a benchmark, at its present revision, which is recorded.

    Files that are there already, of the recorded revision, are kept: a fetch that was killed goes
    on where it stopped.

    Raises:
        UserError: no such benchmark, its data are to be had by hand only, or the hub cannot be
            reached; the message says what to fetch and from where.
    """
    source = _find_source(name)
    if source.hub is None:
        raise UserError(
            f"{name} is not fetched: {source.reason}.\n{describe_by_hand(name, folder)}"
        )
    _fetch(name, source.hub, folder)
    if source.by_hand:
        logger.info("%s", describe_by_hand(name, folder))


def describe_by_hand(name: str, folder: Path) -> str:
    """What to fetch by hand, from where, and where to put it; a few lines of text."""
    source = DATA_SOURCES[name]
    if not source.by_hand:
        return ""
    head = "Fetch by hand" if source.hub is None else f"By hand, if wanted ({source.reason})"
    lines = [f"  {item.what}: {item.address} -> {folder}/{item.goes_to}" for item in source.by_hand]
    return "\n".join([f"{head}:", *lines])


def free_folder(name: str, folder: Path) -> Path:
    """The folder, or one of the benchmark's name beside it, where it has another one's data."""
    hub, path = DATA_SOURCES[name].hub, folder / SOURCE_NAME
    if hub is None or not path.exists() or _is_of(hub, read_object(path)):
        return folder
    return folder.parent / name


def _find_source(name: str) -> DataSource:
    if name in DATA_SOURCES:
        return DATA_SOURCES[name]
    if name == "quickstart":
        raise UserError("quickstart: its data are made by `prism-tune prepare CONFIG`")
    nearest = difflib.get_close_matches(name.lower(), DATA_SOURCES, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UserError(f"unknown benchmark {name!r}; {hint}There are {', '.join(DATA_SOURCES)}")


def _fetch(name: str, hub: HubData, folder: Path) -> None:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import HfHubHTTPError

    record_path = folder / SOURCE_NAME
    try:
        record = _open_record(name, record_path, hub)
        for configuration in hub.configurations or ("",):
            for split in hub.splits:
                _fetch_split(hub, configuration, split, folder, record)
                write_json(record_path, record)
    except (HfHubHTTPError, DatasetNotFoundError, OSError) as error:
        raise UserError(
            f"{name}: {hub.hub_id} cannot be fetched from the hub "
            f"({type(error).__name__}: {first_line(error)}). Check the network and "
            f"HF_TOKEN, or fetch it on another machine and copy {folder}.\n"
            f"{describe_by_hand(name, folder)}"
        ) from error
    logger.info("%s: %s at revision %s", folder, hub.hub_id, record["revision"])


def _open_record(name: str, path: Path, hub: HubData) -> dict[str, Any]:
    """What was fetched before; otherwise an empty record at the hub's present revision."""
    if path.exists():
        record: dict[str, Any] = read_object(path, "revision", "files")
        if not _is_of(hub, record):
            there = " ".join([record["hub_id"], *record["configurations"]])
            raise UserError(
                f"{path}: of {there}, and {name} is {' '.join([hub.hub_id, *hub.configurations])}; "
                f"give --to another folder, for example {free_folder(name, path.parent)}"
            )
        return record
    from huggingface_hub import snapshot_download

    # The folder is named after the revision. Unlike `dataset_info` this turns every failure of the
    # network, whatever library raises it, into one of the hub's own errors.
    card = snapshot_download(hub.hub_id, repo_type="dataset", allow_patterns=["README.md"])
    return {**_list_source(hub), "revision": Path(card).name, "files": {}}


def _is_of(hub: HubData, record: Mapping[str, Any]) -> bool:
    """Whether files are of this dataset and these configurations, whose names they do not tell."""
    return all(record.get(key) == value for key, value in _list_source(hub).items())


def _list_source(hub: HubData) -> dict[str, Any]:
    return {"hub_id": hub.hub_id, "configurations": list(hub.configurations)}


def _fetch_split(
    hub: HubData, configuration: str, split: str, folder: Path, record: dict[str, Any]
) -> None:
    path = _name_file(hub, configuration, split, folder)
    known = record["files"].get(path.name)
    if known and path.exists() and fingerprint_file(path) == known["sha256"]:
        logger.info("%s: there already", path)
        return
    from datasets import load_dataset

    rows: Any = load_dataset(
        hub.hub_id, configuration or None, split=split, revision=record["revision"]
    )
    folder.mkdir(parents=True, exist_ok=True)
    remove_left_over(path, ".fetch-")
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{path.name}.fetch-") as temporary:
        part = Path(temporary) / path.name
        rows.to_parquet(str(part))
        os.replace(part, path)
    record["files"][path.name] = {"sha256": fingerprint_file(path), "num_rows": len(rows)}
    logger.info("%s: %d rows", path, len(rows))


def _name_file(hub: HubData, configuration: str, split: str, folder: Path) -> Path:
    """Split first, as the hub names its files and as language benchmarks look for them."""
    several = len(hub.configurations) > 1
    return folder / (f"{split}-{configuration}.parquet" if several else f"{split}.parquet")
