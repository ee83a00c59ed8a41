"""What is computed once: the distinct (images, prompt) of a pool.

The pool goes in; units, and the unit of each record, come out; later the row of each record. With
prefix prompts a unit is normally one distinct image, however many records and file names share it.

Shape legend: N records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.policy import apply_policy
from prism_tune.data.records import Pool
from prism_tune.features.shards import StoredRows
from prism_tune.processes import from_main
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.prompts import PromptKind, digest_prompts
from prism_tune.selection.evidence.source import Evidence, Reading, find_measured


@dataclass(frozen=True)
class Units:
    """`record_of[key]` is the first record of a unit; keys are sorted.

    `unit_N` is each record's number of a unit, -1 for records that are not ranked and for skipped
    ones; `skipped` are these with reasons, by index.
    """

    record_of: dict[str, int]
    unit_N: NDArray[np.int64]
    skipped: dict[int, Skipped]

    @property
    def keys(self) -> list[str]:
        """Of every unit, sorted."""
        return list(self.record_of)


def find_units(
    config: Config, pool: Pool, kind: PromptKind, processor: Any, left_out: Mapping[int, Skipped]
) -> Units:
    """Group the records to be ranked by the content of their images and their prompt.

    The main process does, for all.

    Args:
        config: template, policy and output_dir are read.
        pool: the records.
        kind: how much of a record is read.
        processor: the model's.
        left_out: by index, the records that are skipped already, with reasons.

    Raises:
        UserError: a broken image whose policy is "fail".
    """
    return from_main(lambda: _group_records(config, pool, kind, processor, left_out))


def _group_records(
    config: Config, pool: Pool, kind: PromptKind, processor: Any, left_out: Mapping[int, Skipped]
) -> Units:
    hashes_of, skipped = _find_usable(config, pool, left_out)
    digests_N = digest_prompts(pool, kind, config.model.template, processor, config)
    keys = {index: _key(hashes, digests_N[index]) for index, hashes in hashes_of.items()}
    first: dict[str, int] = {}
    for index, key in keys.items():
        first.setdefault(key, index)
    record_of = {key: first[key] for key in sorted(first)}
    place = {key: number for number, key in enumerate(record_of)}
    unit_N = np.full(len(pool), -1, dtype=np.int64)
    for index, key in keys.items():
        unit_N[index] = place[key]
    return Units(record_of, unit_N, skipped)


def usable_images(
    config: Config, pool: Pool, left_out: Mapping[int, Skipped]
) -> tuple[dict[int, list[str]], dict[int, Skipped]]:
    """The hashes of the images of each record to be ranked whose images are there; the others.

    The main process finds them, for all.

    Args:
        config: the policy is read.
        pool: the records.
        left_out: by index, the records that are skipped already, with reasons.

    Raises:
        UserError: a broken image whose policy is "fail".
    """
    return from_main(lambda: _find_usable(config, pool, left_out))


def _find_usable(
    config: Config, pool: Pool, left_out: Mapping[int, Skipped]
) -> tuple[dict[int, list[str]], dict[int, Skipped]]:
    images = pool.image_index
    usable: dict[int, list[str]] = {}
    skipped = dict(left_out)
    for index in np.flatnonzero(find_measured(config, pool)).tolist():
        if index in left_out:
            continue
        names = pool.images(index)
        bad = next((name for name in names if name in images.faults), None)
        if bad is None:
            usable[index] = [images.hashes[name] for name in names]
        else:
            skipped[index] = skip_record(pool, index, *images.faults[bad])
    found = [item for index, item in skipped.items() if index not in left_out]
    apply_policy(str(pool.path), found, config.data.policy)
    return usable, skipped


def locate_rows(
    config: Config,
    pool: Pool,
    units: Units,
    reading: Reading,
    *,
    columns: tuple[str, ...] = (),
    **description: Any,
) -> Evidence:
    """The evidence on a pool: each record's row of what was read, and who is skipped.

    Args:
        config: the policy is read.
        pool: the records.
        units: of the pool.
        reading: of all of them; those that failed are skipped as well.
        columns: names of the numbers of a row.
        description: for the manifest.

    Raises:
        UserError: a unit failed for a reason whose policy is "fail".
    """
    shards = reading.files
    row_of = {key: row for row, key in enumerate(key for shard in shards for key in shard.keys)}
    failed = {key: fault for shard in shards for key, fault in shard.failed.items()}
    keys = units.keys
    row_N = np.array([row_of[key] for key in keys] + [-1], dtype=np.int64)[units.unit_N]
    skipped = dict(units.skipped)
    bad = [number for number, key in enumerate(keys) if key in failed]
    for index in np.flatnonzero(np.isin(units.unit_N, bad)).tolist():
        skipped[index] = skip_record(pool, index, *failed[keys[units.unit_N[index]]])
        row_N[index] = -1
    found = [item for index, item in skipped.items() if index not in units.skipped]
    apply_policy(str(pool.path), found, config.data.policy)
    values_UD = StoredRows(shards) if shards else None
    return Evidence(values_UD, row_N, skipped, (reading,), description, columns)


def skip_record(pool: Pool, index: int, reason: str, detail: str) -> Skipped:
    """The verdict for one record."""
    described = f"{pool.describe(index)}: {detail}"
    return Skipped(pool.uids[index], pool.ids[index], reason, described)


def _key(image_hashes: Sequence[str], digest: bytes) -> str:
    content = " ".join(image_hashes).encode() + b"|" + digest
    return hashlib.blake2b(content, digest_size=16).hexdigest()
