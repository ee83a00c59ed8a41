"""What is asked for when evidence is computed: of which pool, by which config, into which run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.run.folder import RunDir
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.shard_builder import Counts


@dataclass(frozen=True)
class Request:
    """One attempt; every launched process makes the same.

    Attributes:
        config: the model, data and selection sections are read.
        run: whose stores are filled.
        pool: the records.
        left_out: by index, the records that are skipped already, with reasons.
        on_shard: called with the counts of each finished shard.
        force: compute everything anew.
    """

    config: Config
    run: RunDir
    pool: Pool
    left_out: Mapping[int, Skipped]
    on_shard: Callable[[Counts], None]
    force: bool = False
