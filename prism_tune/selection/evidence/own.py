"""Evidence of one's own: features and scores computed elsewhere, on a pool, without any model.

Rows out of a file or an array go in; evidence comes out. A table with a column `uid` or `id` says
whose a row is; else row n belongs to record n of the pool's file, records that cannot be read
counted.

Shape legend: N records of the pool, U rows, D width of a row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prism_tune.config.sections import Config, Section
from prism_tune.data.records import Pool
from prism_tune.errors import UserError, list_some
from prism_tune.run.fingerprints import fingerprint_large
from prism_tune.schema import Skipped
from prism_tune.selection.evidence.own_files import (
    OwnRows,
    read_matrix,
    read_scores,
)
from prism_tune.selection.evidence.source import Evidence, EvidenceSource, Gathering, find_measured
from prism_tune.selection.scorer_options import read_options

logger = logging.getLogger(__name__)


class FileOptions(Section):
    """`selection.options` of the scorer `file`: where the scores stand, and in which column."""

    path: str = Field(description="a file of scores: .npy, .parquet or .csv")
    column: str | None = None


def own_features(path: str, gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
    """The features in a file.

    Raises:
        UserError: as `read_matrix` and `locate_own`.
    """
    return locate_own(read_matrix(Path(path)), gathering, left_out)


def locate_own(
    own: OwnRows,
    gathering: Gathering,
    left_out: Mapping[int, Skipped],
    columns: tuple[str, ...] = (),
) -> Evidence:
    """The evidence that rows of one's own are on a pool.

    Args:
        own: a matrix (U, D).
        gathering: whose pool it is.
        left_out: by index, the records that are skipped.
        columns: names of the D numbers, where they have some.

    Raises:
        UserError: another number of rows than records, or a record to be ranked without row.
    """
    pool = gathering.pool
    wanted = np.flatnonzero(find_measured(gathering.config, pool))
    wanted = wanted[[index not in left_out for index in wanted.tolist()]]
    places = _by_row(own, pool) if own.names is None else _by_name(own, pool)
    row_N = np.full(len(pool), -1, dtype=np.int64)
    row_N[wanted] = places[wanted]
    missing = [pool.ids[index] for index in wanted[row_N[wanted] < 0].tolist()]
    if missing:
        raise UserError(
            f"{own.where}: no row for {len(missing):,} of {len(wanted):,} image records (ids "
            f"{list_some(missing)}); give each one, or leave these out with selection.must_drop"
        )
    described = {"file": own.where, "num_rows": own.values_UD.shape[0], "by": own.by}
    if own.names is None:
        described["by"] = "row"
    return Evidence(own.values_UD, row_N, dict(left_out), (), described, columns)


def _by_row(own: OwnRows, pool: Pool) -> NDArray[np.int64]:
    """Each record's row: its place in the pool's file."""
    num_rows, num_records = own.values_UD.shape[0], len(pool) + len(pool.skipped)
    if num_rows != num_records:
        raise UserError(
            f"{own.where}: {num_rows:,} rows, but {pool.path} has {num_records:,} records; give "
            "every record a row (text-only ones too, whose row is not read), or name them in a "
            "table with a column `uid` or `id`"
        )
    return np.array(pool.positions(range(len(pool))), dtype=np.int64)


def _by_name(own: OwnRows, pool: Pool) -> NDArray[np.int64]:
    """Each record's row by its uid or id; -1 without."""
    assert own.names is not None
    repeated = [name for name, number in Counter(own.names).items() if number > 1]
    if repeated:
        raise UserError(
            f"{own.where}: {len(repeated):,} {own.by}s stand there more than once "
            f"({list_some(repeated)}); give each one row"
        )
    row_of = {name: row for row, name in enumerate(own.names)}
    known = pool.uids if own.by == "uid" else pool.ids
    strange = sorted(row_of.keys() - set(known))
    if strange:
        logger.warning(
            "%s: %d rows name no record of the pool: %s",
            own.where,
            len(strange),
            list_some(strange),
        )
    shared = sum(number for name, number in Counter(known).items() if number > 1 and name in row_of)
    if shared:
        logger.warning(
            "%s: %d records share their id with others, and so their row; a column `uid` tells "
            "them apart (see scores.parquet)",
            own.where,
            shared,
        )
    return np.array([row_of.get(name, -1) for name in known], dtype=np.int64)


def _compute_scores(gathering: Gathering, left_out: Mapping[int, Skipped]) -> Evidence:
    options = read_options(gathering.config, FileOptions)
    own = read_scores(Path(options.path), options.column)
    return locate_own(own, gathering, left_out, ("score",))


def _depends(config: Config) -> dict[str, Any]:
    options = read_options(config, FileOptions)
    return {"scores": fingerprint_large(Path(options.path)), "column": options.column}


OWN_SCORES: EvidenceSource = EvidenceSource(
    "scores", _depends, _compute_scores, lambda config: False
)
"""Read by the scorer `file`."""
