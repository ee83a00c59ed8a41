"""What a method reads of the records before it scores them.

A source goes by its name, says what its rows depend on, and computes those that are not there yet;
out comes the evidence on one pool.

Shape legend: N records of the pool, U rows, D width of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_tune.config.depends import Artifact, fields_of
from prism_tune.config.sections import Config
from prism_tune.data.records import Pool
from prism_tune.features.row_blocks import RowBlocks
from prism_tune.features.shards import Shard, StoredRows
from prism_tune.models.devices import name_dtype, pick_device, resolve_dtype
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.store import EvidenceStore
from prism_tune.selection.meter import SelectionMeter
from prism_tune.selection.reference.read import fingerprint_read


@dataclass(frozen=True)
class Gathering:
    """One attempt at a selection, for which evidence is gathered.

    Attributes:
        config: as `reference.read.read_config` gives it.
        links: where the shards that it reads are kept, a folder for each kind.
        force: compute the rows of its records anew.
    """

    config: Config
    pool: Pool
    meter: SelectionMeter
    links: Path
    force: bool = False


@dataclass(frozen=True)
class Reading:
    """What was read of one store: its shards, and which share of each one's rows.

    `num_units` have a row there, of which `num_computed` were computed for this reading.
    """

    store: EvidenceStore
    shards: tuple[tuple[Shard, float], ...]
    num_units: int
    num_computed: int

    @property
    def files(self) -> list[Shard]:
        """The shards alone."""
        return [shard for shard, _ in self.shards]


@dataclass(frozen=True)
class Evidence:
    """What a source says of a pool: record n has row `row_N[n]` of `values_UD`; -1 has none.

    Attributes:
        values_UD: None for a pool without usable image record, and where only the main process
            makes them, which alone scores, on the others.
        skipped: by index, every record left out so far, with its reason.
        columns: names of the D numbers of a row, where they have some.
        readings: of the stores behind it.
        description: what else the manifest says of it.
    """

    values_UD: RowBlocks | None
    row_N: NDArray[np.int64]
    skipped: dict[int, Skipped]
    readings: tuple[Reading, ...]
    description: dict[str, Any]
    columns: tuple[str, ...] = ()

    def keys(self) -> list[str | None]:
        """The key of each record's row; None where it has none, and of rows of one's own."""
        if not isinstance(self.values_UD, StoredRows):
            return [None] * len(self.row_N)
        keys = self.values_UD.keys
        return [keys[row] if row >= 0 else None for row in self.row_N.tolist()]

    def read_columns(self) -> dict[str, NDArray[np.float64]]:
        """The numbers of every record (N,) by name, NaN where it has none."""
        if not self.columns:
            return {}
        nothing = np.full((1, len(self.columns)), np.nan)  # row -1
        parts = [nothing]
        if self.values_UD is not None:
            parts = [self.values_UD[slice(0, self.values_UD.shape[0])].astype(np.float64), nothing]
        values = np.concatenate(parts)
        return {name: values[self.row_N, number] for number, name in enumerate(self.columns)}


Compute = Callable[[Gathering, Mapping[int, Skipped]], Evidence]
"""Computes what the stores do not have, for the pool without the records left out (by index).

Every process calls it. It raises UserError for a broken record whose policy is "fail", and where
one record alone does not fit into the memory.
"""


@dataclass(frozen=True)
class EvidenceSource:
    """One kind of evidence: its name, what a row of it depends on besides its unit, the rest.

    `needs_model` says whether the target model, or its reference, is run for it.
    """

    name: str
    depends: Callable[[Config], dict[str, Any]]
    compute: Compute
    needs_model: Callable[[Config], bool] = lambda config: True


def find_measured(config: Config, pool: Pool) -> NDArray[np.bool_]:
    """The records that the method ranks: with images, or all where it ranks text-only ones too."""
    if config.selection.text_only == "rank":
        return np.ones(len(pool), dtype=bool)
    return ~pool.is_text_only_N


def depends_on(config: Config, artifact: Artifact, version: int) -> dict[str, Any]:
    """What a model's evidence depends on: its declared fields, content, code.

    Args:
        config: the experiment, as `reference.read.read_config` gives it.
        artifact: as `config/depends.py` calls it.
        version: of the code; another number makes all rows anew.
    """
    dtype = resolve_dtype(config.selection.dtype, pick_device())
    return {
        **fields_of(config, artifact),
        **fingerprint_read(config),
        "selection.dtype": name_dtype(dtype),
        "version": version,
    }
