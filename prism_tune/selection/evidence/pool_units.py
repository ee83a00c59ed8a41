"""A pool's records as units of a store: which are to be computed, and which row each got.

Shape legend: N records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.sections import Config
from prism_tune.data.policy import apply_policy
from prism_tune.data.records import Pool
from prism_tune.features.shards import Shard
from prism_tune.processes import main_first
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.prompts import PromptKind, digest_prompts
from prism_tune.selection.evidence.units import Units, find_units, skip_failed


def find_pool_units(
    config: Config,
    pool: Pool,
    kind: PromptKind,
    processor: Any,
    cache: Path,
    left_out: Mapping[int, Skipped],
) -> Units:
    """The distinct (images, prompt) of the records whose images are there.

    Args:
        config: template and policy are read.
        pool: the records.
        kind: how much of a record is read.
        processor: the model's.
        cache: folder of hashes of prompts.
        left_out: by index, the records that are skipped already, with reasons.

    Raises:
        UserError: a broken image whose policy is "fail".
    """
    template = config.model.template
    digests_N = main_first(lambda: digest_prompts(pool, kind, template, processor, cache))
    units = find_units(pool, digests_N, pool.image_index, left_out)
    apply_policy(str(pool.path), units.skipped, config.data.policy)
    return units


def locate_rows(
    config: Config, pool: Pool, units: Units, shards: Sequence[Shard]
) -> tuple[Units, NDArray[np.int64]]:
    """The units without those that failed, and each record's row of all shards (-1: none).

    Raises:
        UserError: a unit failed for a reason whose policy is "fail".
    """
    failed = {key: fault for shard in shards for key, fault in shard.failed.items()}
    units = skip_failed(pool, units, failed)
    apply_policy(str(pool.path), units.skipped, config.data.policy)
    every_key = (key for shard in shards for key in shard.keys)
    row_of = {key: row for row, key in enumerate(every_key)}
    rows = np.array([row_of[key] for key in units.keys] + [-1], dtype=np.int64)
    return units, rows[units.unit_N]
